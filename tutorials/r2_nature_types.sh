#!/usr/bin/env bash
# R2: nature types from polygons and points of mappers, and what a random split hides. The page is r2_nature_types.md.
#   r2_nature_types.sh DATA WORK [quick|full]
# The variable WEIGHTS names weights for the networks to begin with: imagenet, or a weights file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$@"

# Your own maps: bands of one sensor; polygons and points with a text column; a second mapper's raster with the same labels.
bands=${BANDS:-$data/north_carolina/lsat7_2000_}
polygons=${POLYGONS:-$data/north_carolina/landsat96_polygons.shp}
points=${POINTS:-$data/north_carolina/landsat96_points.shp}
second=${SECOND:-$data/north_carolina/landclass96.tif}
scene=${SCENE:-$data/aber_sentinel2/sen2_20210527_aber.tif}
areas=${AREAS:-$data/aber_sentinel2/training_polygons.gpkg}
weights=${WEIGHTS:-none}
changes=augment=flip,rotate,jitter # patches are turned, and made brighter and darker as other images are

if [ "$size" = quick ]; then
    cells=1500 epochs=2 epochs_patches=1 patches=60
else
    cells=20000 epochs=30 epochs_patches=20 patches=400
fi

# 1. Imagery with semantic labels, polygons of one mapper, points that several agreed on, the map of another mapper.
new_project north_carolina "${bands}10.tif"
for band in 10 20 30 40 50 70; do
    r.in.gdal input="${bands}$band.tif" output=lsat_$band
done
r.semantic.label map=lsat_10,lsat_20,lsat_30,lsat_40,lsat_50,lsat_70 semantic_label=L7_1,L7_2,L7_3,L7_4,L7_5,L7_7
r.in.gdal input="${bands}61.tif" output=thermal
i.group group=lsat input=lsat_10,lsat_20,lsat_30,lsat_40,lsat_50,lsat_70
v.in.ogr -o input="$polygons" output=polygons
v.in.ogr -o input="$points" output=points
r.in.gdal -o input="$second" output=detailed
printf '1:developed\n2:agriculture\n3:herbaceous\n4:shrubland\n5:forest\n6:water\n7:sediment\n' |
    r.category map=detailed separator=: rules=-
# Polygons, points and map agree everywhere here. So the second mapper is invented: one who draws nothing below some hectares.
g.region raster=detailed
r.neighbors input=detailed output=second method=mode size=9
r.category map=second raster=detailed

# 2. The leak. Bands of 28.5 m in a grid of 14.25 m: each cell stands there four times.
g.region raster=lsat_10
g.region res=14.25
sample="v.sample.patches group=lsat input=polygons column=label size=1"
$sample split=none duplicates=drop output=once patches=once | tee once.txt
$sample split=random duplicates=keep output=random patches=random
$sample split=block output=block patches=block
$sample split=column split_column=cat buffer=0 output=sites patches=sites
for split in random block sites; do
    r.learn.deep.train patches=$split model=mlp_$split architecture=mlp hidden=128,64 dropout=0.2 \
        standardize=cell epochs=$epochs | tee $split.txt
done

# 3. A harder test: the model knows main classes from some of their ground classes, and is asked about the others.
cat >levels.csv <<'TABLE'
ground,main
developed,built
agriculture,open
herbaceous,open
shrubland,open
forest,forest
water,wet
sediment,wet
TABLE
g.region raster=lsat_10
v.sample.patches group=lsat input=polygons column=label levels=levels.csv level=main size=1 split=column \
    split_column=label test=herbaceous,sediment output=parents patches=parents
r.learn.deep.train patches=parents model=mlp_parents architecture=mlp epochs=$epochs | tee parents.txt

# 4. Two mappers: only where polygons and map agree, at the level of ground classes, a cell is labelled.
v.sample.patches group=lsat input=polygons column=label agreement=second size=1 number=$cells \
    output=agreed patches=agreed | tee agreed.txt
v.sample.patches -n group=lsat input=polygons column=label agreement=second levels=levels.csv level=main size=1 \
    output=agreed_main patches=agreed_main | tee agreed_main.txt
r.learn.deep.train patches=agreed model=mlp_agreed architecture=mlp hidden=128,64 epochs=$epochs
r.learn.deep.predict group=lsat model=mlp_agreed output=ground confidence=ground_confidence
r.learn.deep.evaluate input=ground reference=detailed levels=levels.csv footprints=agreed \
    report=ground.html matrix=ground.csv | tee ground.txt

for band in 20 30 40; do r.colors -e map=lsat_$band color=grey; done
printf '%s\n' '1 230:190:60' '2 200:50:40' '3 30:110:50' '4 170:210:110' '5 150:120:80' '6 110:160:70' '7 50:90:200' |
    r.colors map=ground rules=-
r.colors map=ground_confidence color=viridis
picture r2_polygons 300 270
d.rgb red=lsat_40 green=lsat_30 blue=lsat_20
d.vect map=polygons type=area fill_color=none color=yellow width=2
picture r2_map 300 270
d.rast map=ground
d.legend -b -n raster=ground at=2,42,2,6
picture r2_confidence 300 270
d.rast map=ground_confidence

# 5. A value instead of a class: the thermal band at the points, from the other bands.
v.db.addcolumn map=points columns="warmth double precision"
v.what.rast map=points raster=thermal column=warmth
v.sample.patches group=lsat input=points column=warmth size=1 output=warmth patches=warmth
r.learn.deep.train patches=warmth model=mlp_warmth architecture=mlp hidden=64,128,64 loss=mse \
    epochs=$epochs | tee warmth.txt

# 6. Points that several mappers agreed on: the middle cell has the label, the patch is its surroundings.
v.sample.patches group=lsat input=points column=label label=center placement=points size=9 number=$((4 * patches)) \
    duplicates=drop output=consensus patches=consensus
r.learn.deep.train patches=consensus model=resnet_points architecture=resnet18 weights="$weights" \
    $changes epochs=$epochs_patches | tee points.txt

# 7. Patches strictly inside one polygon, another sensor with more bands; split per class, and whole polygons.
new_project aber "$scene"
r.in.gdal -o input="$scene" output=s2
r.semantic.label map="$(seq -s , -f s2.%g 10)" \
    semantic_label=S2_2,S2_3,S2_4,S2_5,S2_6,S2_7,S2_8,S2_8A,S2_11,S2_12
v.in.ogr -o input="$areas" output=areas
g.region raster=s2.1
v.sample.patches group=s2 input=areas column=class label=inside size=6 stride=1 per_class=$((patches / 4)) \
    split=class shares=80,10,10 output=per_class patches=per_class
v.sample.patches group=s2 input=areas column=class label=inside size=6 stride=1 per_class=$((patches / 4)) \
    split=column split_column=id shares=60,20,20 buffer=0 output=per_polygon patches=per_polygon

# 8. Residual network and Swin transformer with the settings of the study; the whole network, or its last layer only.
for split in per_class per_polygon; do
    r.learn.deep.train patches=$split model=resnet_$split architecture=resnet18 weights="$weights" optimizer=adamw \
        batch_size=16 learning_rate=0.01 augment=jitter,crop,flip,rotate epochs=$epochs_patches | tee $split.txt
done
r.learn.deep.train patches=per_polygon model=swin architecture=swin_t weights="$weights" optimizer=adamw \
    batch_size=16 learning_rate=0.0001 augment=jitter,crop,flip,rotate epochs=$epochs_patches | tee swin.txt
# Weights of other bands and classes: the network of the points knows six bands of Landsat, here are ten of Sentinel-2.
r.learn.deep.train patches=per_polygon model=head architecture=resnet18 weights=resnet_points freeze=encoder \
    batch_size=16 learning_rate=0.01 $changes epochs=$epochs_patches | tee head.txt

# 9. What came out.
result "identical cells in the fine grid, and cells that are left" "$(number once.txt 'identical patches')" \
    "$(number once.txt 'patches  ')"
result "random split, duplicates kept: overall accuracy, macro F1" "$(number random.txt 'Overall accuracy')" \
    "$(number random.txt 'F1 macro')"
result "blocks: overall accuracy, macro F1" "$(number block.txt 'Overall accuracy')" "$(number block.txt 'F1 macro')"
result "whole polygons: overall accuracy, macro F1" "$(number sites.txt 'Overall accuracy')" \
    "$(number sites.txt 'F1 macro')"
result "main classes from other ground classes: overall accuracy" "$(number parents.txt 'Overall accuracy')"
result "mappers agree, ground and main classes: percent" "$(number agreed.txt 'agreement of two maps')" \
    "$(number agreed_main.txt 'agreement of two maps')"
sed -n '/^Level main/,$p' ground.txt >ground_main.txt
result "map outside training cells: overall accuracy; main classes, all cells" \
    "$(number ground.txt 'outside   overall accuracy')" "$(number ground_main.txt 'Overall accuracy')"
result "regression: RMSE, R2" "$(number warmth.txt RMSE)" "$(number warmth.txt R2)"
result "points: overall accuracy, macro F1" "$(number points.txt 'Overall accuracy')" "$(number points.txt 'F1 macro')"
for run in per_class per_polygon swin head; do
    result "$run: macro F1 of the test, of the last ten epochs" "$(number $run.txt 'F1 macro')" \
        "$(number $run.txt 'epochs: F1 macro')"
done
