#!/usr/bin/env bash
# R1: land cover from aerial imagery, and the segments of an object-based chain. The page is r1_land_cover.md.
#   r1_land_cover.sh DATA WORK [quick|full]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$@"

# Your own maps: an orthophoto with the bands red, green, blue, and areas of the class to find.
image=${IMAGE:-$data/massachusetts/23429155_15.tif}
areas=${AREAS:-$data/massachusetts/23429155_15.gpkg}
class=${CLASS:-building}
changes=augment=flip,rotate,jitter # patches are turned, and made brighter and darker as other images are

if [ "$size" = quick ]; then
    rows=192 home=320 strip=128 away=128 # rows; columns of the first region, of the labels and of the test in the second
    stride=64 epochs=1 epochs_dilated=1 network="filters=16" few=1
else
    rows=512 home=512 strip=192 away=256
    stride=32 epochs=10 epochs_dilated=3 network="filters=64" few=8
fi

# 1. Imagery, labels, and a surface model with cells of its own: 2 m, the imagery has 1 m.
new_project massachusetts "$image"
r.in.gdal -o input="$image" output=ortho
g.rename raster=ortho.1,red,ortho.2,green,ortho.3,blue
for band in red green blue; do
    r.colors map=$band color=grey
done
r.semantic.label map=red,green,blue semantic_label=red,green,blue
v.in.ogr -o input="$areas" output=areas
v.db.addcolumn map=areas columns="cover text"
v.db.update map=areas column=cover value="$class"
g.region raster=red
v.to.rast input=areas output=mapped use=val value=1
r.mapcalc expression="truth = if(isnull(mapped), 0, 1)"
printf '0:background\n1:%s\n' "$class" | r.category map=truth separator=: rules=-
printf '0 235:235:225\n1 200:50:40\n' | r.colors map=truth rules=-
# There is no surface model of this place. This one is invented: two of three houses, dark green that is high, and noise.
g.region res=2 -a
r.mapcalc seed=1 expression="ndsm = float(if(mapped == 1 && row() % 3 > 0, 6, 0) + if(green > red + 8, 5, 0) + rand(0.0, 1.5))"
r.null map=ndsm null=0
r.semantic.label map=ndsm semantic_label=ndsm
g.region raster=red
i.group group=rgb input=red,green,blue
i.group group=rgbh input=red,green,blue,ndsm

# Two regions: a first one in the west with all its labels; a second one, of which a strip is labelled. Its rest is the test.
g.region e=w+$home s=n-$rows
g.region save=first
g.region e=e+$strip
g.region w=e-$strip
g.region save=second
g.region e=e+$away
g.region w=e-$away
g.region save=test

# 2. Patches of 64 and of 128 cells, with and without the surface model.
g.region region=first
v.sample.patches group=rgb input=areas column=cover background=0 size=64 stride=$stride \
    split=block shares=80,20,0 block_size=64 buffer=0 output=patches_64 patches=patches_64
v.sample.patches group=rgb input=areas column=cover background=0 size=128 stride=64 \
    split=block shares=80,20,0 block_size=64 buffer=0 output=patches_128 patches=patches_128
v.sample.patches group=rgbh input=areas column=cover background=0 size=64 stride=$stride \
    split=block shares=80,20,0 block_size=64 buffer=0 output=patches_height patches=patches_height

# 3. Networks: a U-Net on each, and network (a); with filters=64, as at full size, it is the published one.
r.learn.deep.train patches=patches_64 model=unet_64 architecture=unet $changes epochs=$epochs
r.learn.deep.train patches=patches_128 model=unet_128 architecture=unet $changes epochs=$epochs
r.learn.deep.train patches=patches_height model=unet_height architecture=unet $changes epochs=$epochs
r.learn.deep.train patches=patches_64 model=dilated architecture=fcn_dilated \
    $network kernel=5,3 blocks=7 dilations=2 $changes epochs=$epochs_dilated

# 4. Another region: the strip has few labels. Go on with the model of the first region, or begin from scratch.
g.region region=second
v.sample.patches group=rgb input=areas column=cover background=0 size=64 stride=$stride \
    split=block shares=80,20,0 block_size=64 buffer=0 output=patches_second patches=patches_second
r.learn.deep.train patches=patches_second model=scratch architecture=unet $changes epochs=$few
r.learn.deep.train patches=patches_second model=tuned weights=unet_64 $changes epochs=$few

# 5. Maps of the test ground, which no patch has touched, and of its segments.
g.region region=test
i.segment group=rgb output=segments threshold=0.05 minsize=30 memory=1000
for model in unet_64 unet_128 dilated scratch tuned; do
    r.learn.deep.predict group=rgb model=$model output=$model
done
r.learn.deep.predict group=rgbh model=unet_height output=unet_height
r.learn.deep.predict group=rgb model=tuned segments=segments segments_output=tuned_segments \
    segments_table=segments.csv aggregate=mean
r.learn.deep.predict group=rgb model=tuned segments=segments segments_output=tuned_majority aggregate=majority

# 6. The table of segments joins with the statistics of the segments; both have the key cat.
if command -v i.segment.stats >/dev/null; then
    i.segment.stats map=segments rasters=red,green,blue csvfile=stats.csv
else # the add-on is not installed: r.univar has the same numbers
    r.univar -t map=green zones=segments separator=pipe | cut -d '|' -f 1,8,10 | sed '1s/.*/cat|green_mean|green_stddev/' >stats.csv
fi
for table in segments stats; do
    sed '1s/^cat/segment/; s/|/;/g' $table.csv >${table}_table.csv # a separator that GDAL knows; cat would be its own
    db.in.ogr input=${table}_table.csv output=${table}_table
done
r.to.vect -v input=segments output=objects type=area
v.db.join map=objects column=cat other_table=segments_table other_column=segment
v.db.join map=objects column=cat other_table=stats_table other_column=segment
v.info -c map=objects

# 7. The accuracy report.
r.learn.deep.evaluate input=unet_64,unet_128,unet_height,dilated reference=truth \
    report=networks.html matrix=networks.csv >networks.txt
r.learn.deep.evaluate input=scratch,tuned,tuned_segments,tuned_majority reference=truth segments=segments \
    report=transfer.html >transfer.txt
cat networks.txt transfer.txt | tee accuracy.txt
v.db.select map=objects columns=cat,label,confidence,p_1 where="cat <= 5"
for map in unet_64 unet_128 unet_height dilated scratch tuned tuned_segments tuned_majority; do
    of_map accuracy.txt $map >one.txt
    result "$map: overall accuracy, kappa, weighted F1, F1 of the class" "$(number one.txt 'Overall accuracy')" \
        "$(number one.txt Kappa)" "$(number one.txt 'F1 weighted')" "$(f1 one.txt "$class")"
done

# 8. Pictures of the middle of the test ground.
g.region n=n-$((rows / 4)) s=s+$((rows / 4))
for map in tuned tuned_segments; do r.colors map=$map raster=truth; done
i.colors.enhance red=red green=green blue=blue strength=98
picture r1_image 256 256
d.rgb red=red green=green blue=blue
d.vect map=areas type=area fill_color=none color=yellow
picture r1_unet 256 256
d.rast map=tuned
picture r1_segments 256 256
d.rast map=tuned_segments
