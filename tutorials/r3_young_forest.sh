#!/usr/bin/env bash
# R3: which stands need clearing - crops of polygons on several dates, density of points. The page is r3_young_forest.md.
#   r3_young_forest.sh DATA WORK [quick|full]
# The variable WEIGHTS names weights for the networks to begin with: imagenet, or a weights file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$@"

# Your own maps: points of trees and an image; polygons and scenes of several dates; an index and a cloud mask per date.
image=${IMAGE:-$data/injune_stems/injune_p142_casi.tif}
points=${POINTS:-$data/injune_stems/stems.gpkg}
series=${SERIES:-$data/slovenia_series}
weights=${WEIGHTS:-none}
changes=augment=flip,rotate,jitter # patches are turned, and made brighter and darker as other images are

if [ "$size" = quick ]; then
    epochs=1 epochs_crops=1 epochs_dates=1 stride=8 stride_dates=16 dates="18 45 59"
else
    epochs=25 epochs_crops=20 epochs_dates=10 stride=4 stride_dates=8 dates="18 19 21 28 41 45 50 51 59 60"
fi

# 1. A degree for each cell: stems per 5 m cell. The image of 1 m becomes means of 5 m.
new_project injune "$image"
r.in.gdal input="$image" output=fine
v.in.ogr input="$points" output=stems
g.region raster=fine.1
g.region res=5
bands=
for band in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do
    r.resamp.stats input=fine.$band output=mean_$band method=average
    bands=$bands,mean_$band
done
i.group group=casi input=${bands#,}
# A classification that knows shade (3), as the scene classification of Sentinel-2 does; shade is not learned from.
eval "$(r.univar -g mean_10)"
r.mapcalc expression="scene_class = if(mean_10 < $mean - 1.3 * $stddev, 3, 4)"

v.sample.patches group=casi input=stems label=density percentile=97 ignore=scene_class ignore_values=3 size=16 \
    stride=$stride split=block block_size=80 buffer=0 output=density patches=density | tee sampled.txt
r.learn.deep.train patches=density model=degree architecture=deeplabv3 encoder=resnet18 weights="$weights" loss=mse \
    optimizer=adam learning_rate=0.001 $changes epochs=$epochs | tee degree.txt
r.learn.deep.predict group=casi model=degree output=degree
for band in 3 6 10; do r.colors -e map=fine.$band color=grey; done
printf '%s\n' '0 white' '1 0:90:40' '2 0:90:40' '-1 white' | r.colors map=degree rules=-
g.region res=1
picture r3_stems 480 144
d.rgb red=fine.10 green=fine.6 blue=fine.3
d.vect map=stems icon=basic/circle size=3 color=yellow fill_color=none
g.region res=5
picture r3_degree 480 144
d.rast map=degree

# 2. The discrete variant: any stem makes a cell class 1; the loss is the Jaccard index.
v.to.rast input=stems output=trees use=val value=1 type=point
r.null map=trees null=0
printf '0:open\n1:trees\n' | r.category map=trees separator=: rules=-
v.sample.patches group=casi raster=trees ignore=scene_class ignore_values=3 size=16 stride=$stride \
    split=block block_size=80 buffer=0 output=any_tree patches=any_tree
r.learn.deep.train patches=any_tree model=trees architecture=deeplabv3 encoder=resnet18 weights="$weights" loss=jaccard \
    optimizer=adam learning_rate=0.001 $changes epochs=$epochs | tee trees.txt

# 3. One crop per polygon and date: its bounding box, padded. Three dates of thirteen bands; three and ten of them are used.
new_project slovenia "$series/lulc.tif"
for date in 2 3 4; do
    r.in.gdal input="$series/s2_l1c_scene${date}_13b.tif" output=scene$date
    r.semantic.label map="$(seq -s , -f scene$date.%g 13)" \
        semantic_label=S2_1,S2_2,S2_3,S2_4,S2_5,S2_6,S2_7,S2_8,S2_8A,S2_9,S2_10,S2_11,S2_12
    i.group group=rgb$date input=scene$date.4,scene$date.3,scene$date.2
    ten=
    for number in 2 3 4 5 6 7 8 9 12 13; do ten=$ten,scene$date.$number; done
    i.group group=ten$date input=${ten#,}
done
v.in.ogr input="$series/LULC.gpkg" output=polygons columns=cat,number,raba,area,date,lulc,name
v.db.addcolumn map=polygons columns="stand text"
v.db.update map=polygons column=stand value=wooded where="name IN ('forest', 'schrubland')"
v.db.update map=polygons column=stand value=open where="name IN ('grassland', 'cultivated land')"
g.region raster=scene2.1
crops="input=polygons column=stand where=area<30000 label=object size=32"
v.sample.patches group=rgb2,rgb3,rgb4 $crops split=acquisition validation=rgb3 test=rgb4 output=rgb patches=rgb_crops
v.sample.patches group=ten2,ten3,ten4 $crops split=acquisition validation=ten3 test=ten4 output=dates patches=date_crops
v.sample.patches group=ten2,ten3,ten4 $crops split=column split_column=cat shares=60,20,20 buffer=0 \
    output=polygons_apart patches=polygon_crops
sgd="$changes optimizer=sgd learning_rate=0.001 momentum=0.9 scheduler=step step=7 gamma=0.1 batch_size=8 epochs=$epochs_crops"
r.learn.deep.train patches=rgb_crops model=rgb architecture=resnet18 weights="$weights" $sgd | tee rgb.txt
# The first convolution is widened from three to ten bands: red, green and blue keep their filters.
r.learn.deep.train patches=date_crops model=dates architecture=resnet18 weights=rgb $sgd | tee dates.txt
r.learn.deep.train patches=polygon_crops model=polygons_apart architecture=resnet18 weights=none $sgd | tee polygons.txt

# 4. Every cell on several dates, with the clouds of each: split by date, and by region.
r.in.gdal input="$series/ndvi_68dates.tif" output=ndvi
r.in.gdal input="$series/cloudmask_68dates.tif" output=cloud
r.in.gdal input="$series/lulc.tif" output=lulc
r.null map=lulc setnull=0
printf '1:cultivated land\n2:forest\n3:grassland\n4:shrubland\n8:artificial surface\n' |
    r.category map=lulc separator=: rules=-
groups= clouds= maps=
for date in $dates; do
    i.group group=date$date input=ndvi.$date
    groups=$groups,date$date clouds=$clouds,cloud.$date maps=$maps,ndvi.$date
done
r.semantic.label map="${maps#,}" semantic_label=ndvi
g.region raster=lulc
sample="v.sample.patches group=${groups#,} raster=lulc ignore=${clouds#,} ignore_values=1 size=16 stride=$stride_dates"
$sample split=acquisition output=by_date patches=date_cells | tee by_date_sampled.txt
$sample split=block block_size=160 buffer=0 output=by_region patches=region_cells
for split in date region; do
    r.learn.deep.train patches=${split}_cells model=by_$split architecture=deeplabv3 encoder=resnet18 weights="$weights" \
        loss=cross_entropy $changes epochs=$epochs_dates | tee by_$split.txt
done
last=${dates##* }
r.learn.deep.predict group=date$last model=by_region output=cover
printf '%s\n' '1 230:190:60' '2 30:110:50' '3 170:210:110' '4 110:160:70' '8 200:50:40' >colors.txt
for map in lulc cover; do r.colors map=$map rules=colors.txt; done
picture r3_ndvi 250 250
d.rast map=ndvi.$last
picture r3_lulc 250 250
d.rast map=lulc
picture r3_cover 250 250
d.rast map=cover
d.legend -b -n raster=lulc at=2,40,2,7

result "stems per cell, test blocks: RMSE, MAE, R2" "$(number degree.txt RMSE)" "$(number degree.txt MAE)" \
    "$(number degree.txt R2)"
result "any stem, Jaccard loss: IoU, overall accuracy" "$(number trees.txt 'Mean IoU')" \
    "$(number trees.txt 'Overall accuracy')"
result "crops, three bands, last date" "$(number rgb.txt 'Overall accuracy')"
result "crops, ten bands, last date" "$(number dates.txt 'Overall accuracy')"
result "crops, ten bands, other polygons" "$(number polygons.txt 'Overall accuracy')"
result "cells, split by date" "$(number by_date.txt 'Overall accuracy')" "$(number by_date.txt 'F1 macro')"
result "cells, split by region" "$(number by_region.txt 'Overall accuracy')" "$(number by_region.txt 'F1 macro')"
