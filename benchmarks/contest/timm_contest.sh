#!/bin/sh
# What a user of timm's train.py types for a folder of photographs; benchmarks/contest/run.py runs it.
#
#     timm_contest.sh PYTHON SCRIPTS GROCERY WEIGHTS EPOCHS [FLAGS OF train.py ...]
#
# SCRIPTS holds train.py and validate.py of timm's repository. The class map is needed: each split numbers its own
# class folders, and where one lacks some, as grocery's val does, its labels would mean other classes.
# --initial-checkpoint refuses a file whose classifier has another number of classes; --pretrained-path adapts it.
set -e
PYTHON=$1 SCRIPTS=$2 GROCERY=$3 WEIGHTS=$4 EPOCHS=$5
shift 5
ls "$GROCERY/train" > classes.txt
"$PYTHON" "$SCRIPTS/train.py" --data-dir "$GROCERY" --class-map classes.txt --num-classes "$(wc -l < classes.txt)" \
  --model tf_efficientnet_lite0 --pretrained --pretrained-path "$WEIGHTS" \
  --device cpu --epochs "$EPOCHS" --output runs --experiment contest "$@"
"$PYTHON" "$SCRIPTS/validate.py" --data-dir "$GROCERY/test" --class-map classes.txt \
  --num-classes "$(wc -l < classes.txt)" --model tf_efficientnet_lite0 \
  --checkpoint runs/contest/model_best.pth.tar --device cpu
