#!/usr/bin/env bash
# Invented scenes under the names of the real ones, for whoever wants to run the tutorials without them.
#   invented_data.sh DIRECTORY
# Fields of some classes, a spectrum for each, noise. They show that everything runs; their scores mean nothing.
set -euo pipefail
[ $# = 1 ] && [ ! -e "$1" ] || { echo "Usage: $0 DIRECTORY (a new one)" >&2 && exit 2; }
target=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$scratch" "$scratch/run"
cd - >/dev/null

# place FOLDER EPSG ROWS COLS RESOLUTION: a project with a region of that size; files go to FOLDER.
place() {
    folder=$target/$1
    mkdir -p "$folder"
    new_project "$1" "EPSG:$2"
    { set +x; } 2>/dev/null
    g.region w=500000 s=200000 e=$((500000 + $4 * $5)) n=$((200000 + $3 * $5)) res="$5"
}

# land CLASSES WIDTH: fields of about so many cells, raster cover with the categories 1 to CLASSES.
land() {
    r.mapcalc seed=1 expression="noise = rand(0.0, 1.0)"
    r.neighbors -c input=noise output=smooth size="$2"
    eval "$(r.univar -g smooth)"
    r.mapcalc expression="cover = min($1, max(1, 1 + int($1 * (0.5 + (smooth - $mean) / (3.5 * $stddev)))))"
}

# bands NAME NUMBER: rasters NAME.1 to NAME.NUMBER, a spectrum for each class, and a group of all.
bands() {
    local band names=
    for band in $(seq "$2"); do
        r.mapcalc seed="$band" \
            expression="$1.$band = 500 + 200 * ((cover * ($band + 3)) % 5) + 40 * cover + rand(-120, 120)"
        names=$names,$1.$band
    done
    i.group group="$1" input="${names#,}"
}

# export RASTER FILE TYPE
export_raster() { r.out.gdal -cf --overwrite input="$1" output="$folder/$2" type="$3" 2>/dev/null; }

# areas COLUMN LABELS...: vector map areas around the fields, with the label of each in a text column.
areas() {
    local column=$1 number=0 label
    shift
    r.to.vect -s input=cover output=fields type=area column=number
    v.clean input=fields output=areas tool=rmarea threshold=$((cell * cell * 60))
    v.db.dropcolumn map=areas columns=label
    v.db.addcolumn map=areas columns="$column text,id integer"
    v.db.update map=areas column=id query_column=cat
    for label in "$@"; do
        number=$((number + 1))
        v.db.update map=areas column="$column" value="$label" where="number = $number"
    done
}

export_vector() { v.out.ogr input="$1" output="$folder/$2" format="$3" type="$4" 2>/dev/null; }

place massachusetts 26986 256 640 1
r.mapcalc expression="cover = if(row() % 24 > 8 && row() % 24 < 20 && (col() + row() / 24 * 7) % 30 > 14, 1, 2)"
bands image 3
export_raster image 23429155_15.tif UInt16
r.mapcalc expression="class = if(cover == 1, 1, null())"
r.to.vect input=class output=houses type=area column=class
export_vector houses 23429155_15.gpkg GPKG area

place north_carolina 32119 300 300 30
land 7 21
bands lsat 7
number=0
for name in 10 20 30 40 50 70 61; do
    number=$((number + 1))
    export_raster lsat.$number lsat7_2000_$name.tif UInt16
done
export_raster cover landclass96.tif Byte
ground="developed agriculture herbaceous shrubland forest water sediment"
cell=30 areas label $ground
export_vector areas landsat96_polygons.shp ESRI_Shapefile area
v.random output=points npoints=600 seed=1 column=number column_type=integer
v.db.addcolumn map=points columns="label text"
v.what.rast map=points raster=cover column=number
number=0
for label in $ground; do
    number=$((number + 1))
    v.db.update map=points column=label value=$label where="number = $number"
done
export_vector points landsat96_points.shp ESRI_Shapefile point

place aber_sentinel2 27700 300 300 10
land 4 31
bands s2 10
export_raster s2 sen2_20210527_aber.tif UInt16
cell=10 areas class forest grass urban water
export_vector areas training_polygons.gpkg GPKG area

place injune_stems 32755 150 500 1
land 4 41
bands casi 14
export_raster casi injune_p142_casi.tif UInt16
r.mapcalc expression="wooded = if(cover > 2, 1, null())"
r.random input=wooded npoints=1800 vector=stems seed=1
export_vector stems stems.gpkg GPKG point

place slovenia_series 32633 100 100 10
land 4 13
export_raster cover lulc.tif Byte
r.mapcalc seed=3 expression="height = float(600 + row() + 20 * cover + rand(0.0, 5.0))"
export_raster height dem.tif Float32
for date in 2 3 4; do
    bands scene$date 13
    export_raster scene$date s2_l1c_scene${date}_13b.tif UInt16
done
bands dates 68
for band in $(seq 68); do
    r.mapcalc expression="index.$band = float(dates.$band / 2000.0)"
    r.mapcalc seed="$band" expression="cloud.$band = if(row() + col() < $band % 9 * 8, 1, 0)"
done
i.group group=index input="$(seq -f index.%g -s , 68)"
i.group group=cloud input="$(seq -f cloud.%g -s , 68)"
export_raster index ndvi_68dates.tif Float32
export_raster cloud cloudmask_68dates.tif Byte
cell=10 areas lulc_name "cultivated land" forest grassland schrubland
v.db.dropcolumn map=areas columns=number,id
v.db.addcolumn map=areas columns="number integer,raba integer,area double precision,date text,lulc integer,name text"
v.db.update map=areas column=name query_column=lulc_name
v.db.dropcolumn map=areas columns=lulc_name
v.to.db --overwrite map=areas option=area columns=area
export_vector areas LULC.gpkg GPKG area

place zion_landsat8 32612 360 640 30
land 8 25
bands l8 4
for band in 1 2 3 4; do export_raster l8.$band landsat_b$((band + 1)).tif UInt16; done
g.region res=31.5
export_raster cover nlcd.tif Byte
