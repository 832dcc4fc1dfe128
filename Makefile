# One file, two readers.
#
# GRASS (g.extension, or make in the tree of GRASS add-ons) gives MODULE_TOPDIR and finds an add-on of five directories.
# A person at the top of a checkout finds: make demo, check, install, uninstall, manuals, lint.

ifdef MODULE_TOPDIR

PGM = r.learn.deep

SUBDIRS = lib \
	v.sample.patches \
	r.learn.deep.train \
	r.learn.deep.predict \
	r.learn.deep.evaluate

include $(MODULE_TOPDIR)/include/Make/Dir.make

default: parsubdirs htmldir

# The manual as GRASS has finished it, with its header and links; installsubdirs alone would leave the suite's page out.
install: installsubdirs
	$(INSTALL_DATA) $(HTMLDIR)/$(PGM).html $(INST_DIR)/docs/html/
	$(INSTALL_DATA) $(MANDIR)/$(PGM).$(MANSECT) $(INST_DIR)/docs/man/man1/
	$(MKDIR) $(INST_DIR)/docs/html/tutorials
	$(INSTALL_DATA) tutorials/*.html tutorials/*.png tutorials/*.sh $(INST_DIR)/docs/html/tutorials/

else

VENV = .venv
PYTHON = $(VENV)/bin/python

help:
	@echo "make demo       set up, build a small scene, run the four tools on it, print scores, write pictures"
	@echo "make check      set up what tests need and run them all"
	@echo "make install    install into GRASS_ADDON_BASE, or into your own add-on directory; needs no network"
	@echo "make uninstall  remove what make install or g.extension installed"
	@echo "make manuals    write the .html manuals again from the .md manuals"
	@echo "make lint       style and types only"

demo:
	@tools/setup.sh demo
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" demo/run

check:
	@tools/setup.sh check
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest

install:
	@python3 tools/addon.py install

uninstall:
	@python3 tools/addon.py remove

manuals:
	@tools/setup.sh check
	@$(PYTHON) tools/manual_html.py

lint:
	@tools/setup.sh check
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

.PHONY: help demo check install uninstall manuals lint

endif
