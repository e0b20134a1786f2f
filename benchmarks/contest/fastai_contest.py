"""What a fastai user types for a folder of photographs; benchmarks/contest/run.py runs it.

    python fastai_contest.py GROCERY WEIGHTS EPOCHS

fastai's own defaults everywhere: batches of 64, Adam, one cycle, a new head of two layers; one epoch with the body
frozen, then EPOCHS of the whole network. timm loads WEIGHTS, a file of tensors in its own names, in place of its
download, and brings the mean and deviation that belong to them.
"""
# ruff: noqa: F403, F405

import sys

from fastai.vision.all import *

grocery, weights, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dls = ImageDataLoaders.from_folder(grocery, valid="val", item_tfms=Resize(224), batch_tfms=aug_transforms())
learn = vision_learner(dls, "tf_efficientnet_lite0", metrics=accuracy, pretrained_cfg_overlay={"file": weights})
learn.fine_tune(epochs)
test = dls.test_dl(get_image_files(grocery / "test"), with_labels=True)
print(f"test accuracy: {100 * learn.validate(dl=test)[1]:.4f}")
