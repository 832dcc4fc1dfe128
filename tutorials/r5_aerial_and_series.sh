#!/usr/bin/env bash
# R5: a fine image and a time series of the same ground, first without labels, then with. The page is r5_aerial_and_series.md.
#   r5_aerial_and_series.sh DATA WORK [quick|full]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$@"

# Your own maps: a directory with a scene, labels, heights, and an index and a cloud mask per date.
series=${SERIES:-$data/slovenia_series}
scene=${SCENE:-$series/s2_l1c_scene2_13b.tif}
changes=augment=flip,rotate,jitter # patches are turned, and made brighter and darker as other images are

if [ "$size" = quick ]; then
    stride=16 epochs=1 epochs_places=1 filters=8
    days="38:2017-04-01 59:2017-09-28"
else
    stride=8 epochs=10 epochs_places=20 filters=16
    days="35:2017-02-20 38:2017-04-01 41:2017-05-01 45:2017-06-20 50:2017-07-25 55:2017-08-29 59:2017-09-28 62:2017-10-18"
fi

# 1. Three sources. The aerial image is a stand-in: blue, green, red and near infrared of a scene, interpolated to half its cells.
new_project slovenia "$series/lulc.tif"
r.in.gdal input="$scene" output=scene
for name in lulc dem; do r.in.gdal input="$series/$name.tif" output=$name; done
r.in.gdal input="$series/ndvi_68dates.tif" output=ndvi
r.in.gdal input="$series/cloudmask_68dates.tif" output=cloud
g.region raster=lulc
eval "$(g.region -g)"
g.region rows=$((2 * rows)) cols=$((2 * cols))
fine=
for band in 2 3 4 8; do
    r.resamp.interp input=scene.$band output=fine_$band method=bicubic
    r.colors map=fine_$band color=grey
    fine=$fine,fine_$band
done
r.semantic.label map="${fine#,},dem" semantic_label=S2_2,S2_3,S2_4,S2_8,height
i.group group=fine input=${fine#,}
i.group group=heights input=dem
# Of the series each date is a group of its own, in cells of 10 m; clouds are null.
groups= dates= maps=
for day in $days; do
    number=${day%%:*}
    g.region raster=ndvi.$number
    r.mapcalc expression="clear_$number = if(cloud.$number == 0, ndvi.$number, null())"
    r.colors map=clear_$number color=ndvi
    i.group group=day_$number input=clear_$number
    groups=$groups,day_$number dates=$dates,${day#*:} maps=$maps,clear_$number
done
r.semantic.label map="${maps#,}" semantic_label=NDVI
# A class of a few cells cannot be learned.
g.region raster=lulc
r.mapcalc expression="cover = if(lulc < 2, null(), lulc)"
printf '2:forest\n3:grassland\n4:shrubland\n8:artificial surface\n' | r.category map=cover separator=: rules=-
printf '%s\n' '2 30:110:50' '3 170:210:110' '4 110:160:70' '8 200:50:40' | r.colors map=cover rules=-
g.region raster=fine_2 zoom=fine_2 # an interpolation has no edges

# 2. Patches of 16 cells of 5 m, with 12 cells of 10 m of the heights and 24 of each date around them: with labels, and without.
sources="group=fine auxiliary=heights series=${groups#,} dates=${dates#,} auxiliary_size=12,24"
v.sample.patches $sources raster=cover size=16 stride=$stride split=block block_size=200 buffer=0 shares=50,25,25 \
    output=labelled patches=labelled | tee sampled.txt
v.sample.patches $sources size=16 output=places patches=places

# 3. Without labels first: SimCLR on all sources, kept as a model directory.
fusion="architecture=fusion encoder=resnet18 filters=$filters blocks=2"
r.learn.deep.train model=encoder $fusion pretrain=simclr unlabelled=places temperature=0.1 \
    pretrain_epochs=$epochs_places
# The other temperature of the study, in one run with the labels: the linear probe says what the features are worth.
r.learn.deep.train patches=labelled model=frozen $fusion pretrain=simclr unlabelled=places temperature=0.7 \
    pretrain_epochs=$epochs_places freeze=encoder $changes epochs=$epochs class_weights=balanced | tee frozen.txt

# 4. Fine-tuning, and the same from scratch; then one source at a time. All on the same blocks.
recipe="class_weights=balanced optimizer=sgd learning_rate=0.01 momentum=0.9 batch_size=8 $changes epochs=$epochs"
r.learn.deep.train patches=labelled model=tuned $fusion weights=encoder encoder_rate=1 $recipe | tee tuned.txt
r.learn.deep.train patches=labelled model=scratch $fusion $recipe | tee scratch.txt
r.learn.deep.train patches=labelled model=image_alone sources=reference $recipe | tee image_alone.txt
r.learn.deep.train patches=labelled model=series_alone $fusion sources=series $recipe | tee series_alone.txt

# 5. Maps. A network of several sources gets them all, or (at full size) does without one.
maps=scratch,tuned,image_alone,series_alone
all="auxiliary=heights series=${groups#,} dates=${dates#,}"
for model in tuned scratch; do r.learn.deep.predict group=fine $all model=$model output=$model; done
r.learn.deep.predict group=fine model=image_alone output=image_alone
r.learn.deep.predict group=fine series=${groups#,} dates=${dates#,} model=series_alone output=series_alone
if [ "$size" = full ]; then
    r.learn.deep.predict group=fine auxiliary=heights model=tuned output=without_series
    maps=$maps,without_series
fi

# 6. The maps on the blocks of the test, side by side.
v.to.rast input=labelled where="part = 'test'" output=test use=val value=1
r.mapcalc expression="reference = if(isnull(test), null(), cover)"
r.category map=reference raster=cover
r.learn.deep.evaluate input=$maps reference=reference report=maps.html matrix=maps.csv | tee maps.txt

i.colors.enhance red=fine_4 green=fine_3 blue=fine_2 strength=98
picture r5_image 250 250
d.rgb red=fine_4 green=fine_3 blue=fine_2
picture r5_cloud 250 250
d.rast map=clear_59
picture r5_cover 250 250
d.rast map=cover
for map in image_alone tuned; do
    picture r5_$map 250 250
    d.rast map=$map
done
d.legend -b -n raster=cover fontsize=9 at=2,22,2,6

result "linear probe, validation blocks: macro F1 with pre-training, without" \
    "$(number frozen.txt 'validation part: F1 macro')" "$(number frozen.txt 'with pre-training,')"
result "frozen encoder, test blocks: overall accuracy, mean IoU" "$(number frozen.txt 'Overall accuracy')" \
    "$(number frozen.txt 'Mean IoU')"
for map in ${maps//,/ }; do
    of_map maps.txt $map >one.txt
    result "$map: overall accuracy, mean IoU" "$(number one.txt 'Overall accuracy')" "$(number one.txt 'Mean IoU')"
    result "$map: IoU per class" "$(iou one.txt)"
done
# The first pair of the comparison.
result "scratch against tuned: difference of accuracies, p of McNemar's test" "$(number maps.txt 'difference')" \
    "$(number maps.txt 'p =')"
