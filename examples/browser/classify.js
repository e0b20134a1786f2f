// A classifier of an ONNX file that `sightline export` wrote, in the browser: nothing that is looked at leaves it.

import * as ort from "./ort.wasm.bundle.min.mjs";

import { decode } from "./decode.js";
import { resize } from "./resize.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

/** Load the classifier that build.py put into a folder. */
export async function load(folder = ".") {
  const [session, metadata] = await Promise.all([
    ort.InferenceSession.create(`${folder}/model.onnx`),
    fetch(`${folder}/model.json`).then((answer) => answer.json()),
  ]);
  return new Classifier(session, metadata);
}

class Classifier {
  constructor(session, metadata) {
    this.session = session;
    this.metadata = metadata;
  }

  /**
   * Classify an image file (a Blob), by the views that the file averages.
   *
   * Returns the classes with their calibrated probabilities, the most probable first, and whether the image is none of them.
   */
  async predict(blob) {
    const { classes, height, width, fit, unknown, views } = this.metadata;
    const pixels = resize(await decode(blob), height, width, fit);
    const tensor = new ort.Tensor("uint8", Uint8Array.from(pixels.data), [1, height, width, 3]);
    const { probabilities, unknown_score: score } = await this.session.run({ pixels: tensor });
    const answers = classes.map((label, index) => ({ label, probability: probabilities.data[index] }));
    answers.sort((one, other) => other.probability - one.probability);
    // a file with adaptive views, which would ask twice, averages all six unless it is told otherwise
    const limit = unknown?.[views === "adaptive" ? "six" : views];
    return { answers, unknown: limit === undefined ? false : score.data[0] > limit };
  }
}
