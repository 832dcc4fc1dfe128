"""The one root of all errors that a user can mend."""


class DeepLearningError(Exception):
    """A rule was broken by what the user gave.

    The message is one line: the rule, what was received, and the way out.
    """


class MissingPackage(DeepLearningError):
    """A Python package that the chosen option needs cannot be imported by this interpreter."""
