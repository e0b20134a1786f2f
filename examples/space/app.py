"""A Space on the Hugging Face hub: a page that asks a classifier, of which `sightline push` has published the files.

Put this file and requirements.txt into a Space of the kind Gradio, and name your repository in MODEL (its settings,
variables). Here: MODEL=runs/first python examples/space/app.py
"""

import os

import gradio as gr

import sightline


def page_of(model: str) -> gr.Interface:
    """Return a page that shows what a classifier sees in an image."""
    classifier = sightline.load(model)

    def answer(image):
        if image is None:
            raise gr.Error("No image was given; drop one.")
        found = classifier.predict(image)
        note = "It looks like none of the classes." if found.unknown else ""
        return found.probabilities, note

    return gr.Interface(
        answer,
        gr.Image(type="pil", label="Image"),
        [gr.Label(num_top_classes=5, label="Most probable"), gr.Textbox(label="Note")],
        title=f"{len(classifier.classes)} classes",
        flagging_mode="never",
    )


if __name__ == "__main__":
    page_of(os.environ.get("MODEL", "hf:OWNER/NAME")).launch()
