#!/usr/bin/env bash
# R4: a land-cover map for a weather model from a coarse label raster. The page is r4_weather_model.md.
#   r4_weather_model.sh DATA WORK [quick|full]
# The variable WEIGHTS names weights for the first network to begin with: imagenet, or a weights file.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/session.sh"
start "$@"

# Your own maps: bands of a scene, and a land cover raster of other cells; a second place of the same kind.
bands=${BANDS:-$data/zion_landsat8/landsat_b}
labels=${LABELS:-$data/zion_landsat8/nlcd.tif}
second=${SECOND:-$data/north_carolina}
weights=${WEIGHTS:-none}
encoder=${ENCODER:-resnet18} # the study had resnet50
changes=augment=flip,rotate,jitter # patches are turned, and made brighter and darker as other images are

if [ "$size" = quick ]; then
    side=192 stride=64 stride_presence=40 epochs=1 cells=2000 epochs_cells=5
else
    side=352 stride=32 stride_presence=20 epochs=12 cells=10000 epochs_cells=30
fi

# 1. Imagery of 30 m; labels of 31.5 m, in a grid of their own; a table of three levels of classes.
new_project zion "${bands}2.tif"
for band in 2 3 4 5; do
    r.in.gdal input="$bands$band.tif" output=l8_$band
done
r.semantic.label map=l8_2,l8_3,l8_4,l8_5 semantic_label=L8_2,L8_3,L8_4,L8_5
i.group group=l8 subgroup=l8 input=l8_2,l8_3,l8_4,l8_5
r.in.gdal -o input="$labels" output=nlcd # its datum differs by a metre
printf '%s\n' 1:water 2:developed 3:barren 4:forest 5:shrubland 6:herbaceous 7:cultivated 8:wetlands |
    r.category map=nlcd separator=: rules=-
cat >levels.csv <<'TABLE'
cover,main,broad
water,moist,grown
developed,bare,bare
barren,bare,bare
forest,wood,grown
shrubland,shrub,grown
herbaceous,moist,grown
cultivated,moist,grown
wetlands,moist,grown
TABLE

# Two countries to learn from, and a third one for the test, side by side in the south.
g.region raster=l8_2
g.region w=e-$((90 * side)) n=s+$((30 * side))
g.region e=w+$((30 * side))
g.region save=first
g.region e=e+$((30 * side))
g.region w=e-$((30 * side))
g.region save=second
g.region e=e+$((30 * side))
g.region w=e-$((30 * side))
g.region save=third

# 2. Several classes per patch: which main classes are there in 1.2 km of land (40 cells of 30 m).
for country in first second; do
    g.region region=$country
    v.sample.patches group=l8 raster=nlcd levels=levels.csv level=main label=presence size=40 \
        stride=$stride_presence split=block block_size=1200 buffer=0 output=presence_$country \
        patches=presence_$country
done
r.learn.deep.train patches=presence_first,presence_second model=classifier architecture=$encoder \
    weights="$weights" $changes epochs=$epochs | tee classifier.txt

# 3. Its trunk becomes the encoder of a U-Net under the label raster; the same from scratch. Both countries in one run.
for country in first second; do
    g.region region=$country
    v.sample.patches group=l8 raster=nlcd levels=levels.csv level=main size=64 stride=$stride split=block \
        block_size=1920 buffer=0 output=cover_$country patches=cover_$country
done
r.learn.deep.train patches=cover_first,cover_second model=with_trunk architecture=unet encoder=$encoder \
    weights=classifier $changes epochs=$epochs | tee with_trunk.txt
r.learn.deep.train patches=cover_first,cover_second model=scratch architecture=unet encoder=$encoder \
    weights=none $changes epochs=$epochs | tee scratch.txt
r.learn.deep.train patches=cover_first model=one_country architecture=unet encoder=$encoder \
    weights=classifier $changes epochs=$epochs

# 4. The old map: maximum likelihood on the same cells, as one would have made it without networks.
printf '%s\n' '1 6 7 8 = 2 moist' '2 3 = 1 bare' '4 = 4 wood' '5 = 3 shrub' |
    r.reclass input=nlcd output=nlcd_main rules=-
g.region region=first
g.region e=e+$((30 * side))
i.gensig trainingmap=nlcd_main group=l8 subgroup=l8 signaturefile=spectra
g.region region=third
i.maxlik group=l8 subgroup=l8 signaturefile=spectra output=likely
r.mapcalc expression="old = int(likely)"
printf '%s\n' 1:bare 2:moist 3:shrub 4:wood | r.category map=old separator=: rules=-

# 5. New maps of the third country, and all maps against one reference, at main and broad classes.
for model in with_trunk scratch one_country; do
    r.learn.deep.predict group=l8 model=$model output=$model
done
r.learn.deep.predict group=l8 model=classifier output=present
r.learn.deep.evaluate input=old,with_trunk,scratch,one_country reference=nlcd levels=levels.csv level=main \
    report=maps.html matrix=maps.csv | tee maps.txt
r.learn.deep.evaluate input=old,with_trunk reference=nlcd levels=levels.csv level=broad | tee broad.txt
# Of the presence maps each is compared with its own class.
r.mapcalc expression="wood = nlcd == 4"
r.learn.deep.evaluate input=present_4 reference=wood | tee wood.txt

printf '%s\n' '1 170:170:170' '2 80:160:230' '3 230:220:130' '4 30:110:50' >colors.txt
for map in nlcd_main old with_trunk; do r.colors map=$map rules=colors.txt; done
picture r4_reference 250 250
d.rast map=nlcd_main
picture r4_old 250 250
d.rast map=old
d.legend -b -n raster=old at=2,30,2,7
picture r4_new 250 250
d.rast map=with_trunk

# 6. The same on a label raster that is shifted by half a cell; two maps against points, with areas.
new_project north_carolina "$second/lsat7_2000_10.tif"
for band in 10 20 30 40 50 70; do r.in.gdal input="$second/lsat7_2000_$band.tif" output=lsat_$band; done
i.group group=lsat subgroup=lsat input=lsat_10,lsat_20,lsat_30,lsat_40,lsat_50,lsat_70
r.in.gdal input="$second/landclass96.tif" output=landclass96
printf '%s\n' 1:developed 2:agriculture 3:herbaceous 4:shrubland 5:forest 6:water 7:sediment |
    r.category map=landclass96 separator=: rules=-
v.in.ogr -o input="$second/landsat96_points.shp" output=points
g.region raster=lsat_10
v.sample.patches group=lsat raster=landclass96 size=1 number=$cells output=cells patches=cells
r.learn.deep.train patches=cells model=perceptron epochs=$epochs_cells
r.learn.deep.predict group=lsat model=perceptron output=new
i.gensig trainingmap=landclass96 group=lsat subgroup=lsat signaturefile=spectra
i.maxlik group=lsat subgroup=lsat signaturefile=spectra output=likely
r.mapcalc expression="old = int(likely)"
r.category map=old raster=landclass96
r.learn.deep.evaluate input=old,new vector=points column=label report=points.html | tee points.txt

# 7. What came out.
result "classes present in a patch: macro F1" "$(number classifier.txt 'F1 macro')"
for model in with_trunk scratch; do
    result "$model, test blocks: overall accuracy, mean IoU" "$(number $model.txt 'Overall accuracy')" \
        "$(number $model.txt 'Mean IoU')"
done
for map in old with_trunk scratch one_country; do
    of_map maps.txt $map >one.txt
    result "third country, $map: overall accuracy, mean IoU" "$(number one.txt 'Overall accuracy')" \
        "$(number one.txt 'Mean IoU')"
done
result "broad classes, old minus new: overall accuracy" "$(number broad.txt 'difference')"
result "wood is present: overall accuracy" "$(number wood.txt 'Overall accuracy')"
for map in old new; do
    of_map points.txt $map >one.txt
    result "North Carolina, $map: overall accuracy at points" "$(number one.txt 'Overall accuracy')"
done
result "North Carolina, McNemar's test of old and new: p" "$(number points.txt 'p =')"
