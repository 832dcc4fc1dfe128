/* The yardstick: reads rasters row by row into floats, or writes one, with nothing around it.
 *
 *   scan read map...        seconds of a scan of the maps in strips of 256 rows
 *   scan write type map     seconds of writing rows of the region; type is c or f
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <grass/gis.h>
#include <grass/raster.h>

#define STRIP 256

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void scan(int count, char **maps, int rows, int cols)
{
    int *files = malloc(count * sizeof(int));
    FCELL *strip = malloc((size_t)count * STRIP * cols * sizeof(FCELL));

    for (int i = 0; i < count; i++)
        files[i] = Rast_open_old(maps[i], "");
    for (int top = 0; top < rows; top += STRIP)
        for (int i = 0; i < count; i++)
            for (int row = top; row < rows && row < top + STRIP; row++)
                Rast_get_f_row(files[i], strip + ((size_t)i * STRIP + row - top) * cols, row);
    for (int i = 0; i < count; i++)
        Rast_close(files[i]);
}

static void fill(RASTER_MAP_TYPE type, const char *map, int rows, int cols)
{
    int file = Rast_open_new(map, type);
    CELL *cells = Rast_allocate_c_buf();
    FCELL *values = Rast_allocate_f_buf();

    for (int row = 0; row < rows; row++) {
        for (int col = 0; col < cols; col++) {
            cells[col] = (row / 9 + col / 7) % 7;
            values[col] = ((row * 31 + col * 17) % 1000) * 0.001f;
        }
        if (type == CELL_TYPE)
            Rast_put_c_row(file, cells);
        else
            Rast_put_f_row(file, values);
    }
    Rast_close(file);
}

int main(int argc, char **argv)
{
    double start;

    G_gisinit(argv[0]);
    start = now();
    if (strcmp(argv[1], "read") == 0)
        scan(argc - 2, argv + 2, Rast_window_rows(), Rast_window_cols());
    else
        fill(argv[2][0] == 'c' ? CELL_TYPE : FCELL_TYPE, argv[3], Rast_window_rows(), Rast_window_cols());
    printf("%f\n", now() - start);
    return 0;
}
