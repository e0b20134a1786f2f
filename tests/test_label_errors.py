"""Suspected labels: judged by heads that did not see the image, and found where they were changed."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sightline.checks import label_errors
from sightline.checks.class_facts import ClassFacts
from sightline.checks.embedding import Embedding
from sightline.checks.label_errors import FOLDS, find_label_errors, neighbors, out_of_fold, true_class_posterior
from sightline.data.folds import deal_folds
from sightline.inference import vectors
from sightline.inference.vectors import Vectors
from sightline.measures.metrics import label_quality, suspected_labels


def blobs(count: int = 300, classes: int = 3, seed: int = 0):
    """Features of three classes that lie apart, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = 4 * np.eye(classes, 8)
    return (centres[labels] + random.normal(size=(count, 8))).astype(np.float32), labels


def test_no_image_is_judged_by_a_head_that_saw_its_label():
    features, labels = blobs()
    folds = np.arange(len(labels)) // 3 % FOLDS
    before = out_of_fold(features, labels, folds, 3, penalties=(0.01,))
    changed = labels.copy()
    changed[folds == 2] = 0  # whatever they are called, they are judged the same
    after = out_of_fold(features, changed, folds, 3, penalties=(0.01,))
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds != 2], after[folds != 2])


def test_probabilities_sum_to_one_and_tell_classes_apart():
    features, labels = blobs()
    found = out_of_fold(features, labels, np.arange(len(labels)) % FOLDS, 3)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == labels).mean() > 0.95


def test_images_of_one_fold_alone_cannot_be_judged():
    features, labels = blobs(6)
    assert np.allclose(out_of_fold(features, labels, np.zeros(6, np.int64), 3), 1 / 3)


def test_changed_labels_are_suspected_first_and_get_their_class_back():
    features, labels = blobs(600)
    given = labels.copy()
    wrong = np.arange(0, 600, 30)
    given[wrong] = (labels[wrong] + 1) % 3
    probabilities = out_of_fold(features, given, np.arange(600) // 3 % FOLDS, 3)
    suspects = suspected_labels(probabilities, given, "noise rate")
    assert len(set(wrong.tolist()) - set(suspects.tolist())) <= 1
    first = suspects[: len(wrong)]
    assert len(set(first.tolist()) & set(wrong.tolist())) >= 18
    suggested = probabilities.argmax(axis=1)
    assert sum(suggested[row] == labels[row] for row in set(wrong.tolist()) & set(suspects.tolist())) >= 19
    quality = label_quality(probabilities, given)[suspects]
    assert quality.tolist() == sorted(quality.tolist())
    assert (suggested[suspects] != given[suspects]).all()


def test_a_wrong_label_is_found_although_a_near_copy_in_another_fold_has_it_too(in_memory):
    count, classes, copied = 450, 3, 60
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    features = (4 * np.eye(classes, 64)[labels] + random.normal(size=(count, 64))).astype(np.float32)
    first, second = np.arange(copied), np.arange(copied) + copied  # shown once more, a little changed
    features[second] = features[first] + 0.05 * random.normal(size=(copied, 64)).astype(np.float32)
    labels[second] = labels[first]
    wrong = np.concatenate(
        [first[: copied // 2], second[: copied // 2]]
    )  # half of them, both with the same wrong label
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % classes
    images, areas = in_memory(given.tolist()), []
    for alike in (None, (first, second)):
        folds = deal_folds(images, images.readable, FOLDS, 0, alike)
        posterior = true_class_posterior(out_of_fold(features, given, folds, classes, penalties=(0.01,)), given)
        areas.append(roc_auc_score(np.isin(np.arange(count), wrong), -posterior[np.arange(count), given]))
    assert areas[1] > areas[0] + 0.05, areas  # means of five seeds: 0.856 and 0.957
    found = [judged(in_memory, features, given, alike=alike) for alike in (None, (first, second))]
    caught = [len(set(wrong.tolist()) & {item.row for item in one.findings}) for one in found]
    assert caught[1] > caught[0], caught


def test_right_labels_are_not_suspected():
    features, labels = blobs(600)
    probabilities = out_of_fold(10 * features, labels, np.arange(600) // 3 % FOLDS, 3)
    assert len(suspected_labels(probabilities, labels, "noise rate")) <= 6


def test_quality_is_low_where_another_class_is_more_probable():
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    assert label_quality(probabilities, np.array([0, 0, 0])).tolist() == pytest.approx([0.9, 0.5, 0.0])


def judged(in_memory, features, labels, splits=None, alike=None):
    vectors = Vectors([features]), Vectors([features[:, :2]])
    embedding = Embedding(np.arange(len(labels)), *vectors, "made-up features", 0)
    return find_label_errors(in_memory(labels.tolist(), splits=splits), embedding, alike=alike)


def test_the_findings_name_the_given_and_the_suggested_class(in_memory):
    features, labels = blobs(300)
    given = labels.copy()
    given[7] = (labels[7] + 1) % 3
    found = judged(in_memory, features, given)
    assert found.findings[0].row == 7
    assert found.findings[0].detail.startswith(f"given class {given[7]}, suggested class {labels[7]}")
    assert found.findings[0].suggested == labels[7]
    assert 0.5 < found.findings[0].certainty <= 1
    assert found.findings[0].judge == "made-up features"
    assert "made-up features" in found.notes[0]


def test_the_nearest_trusted_images_of_the_suggested_class_speak_for_it(in_memory):
    features, labels = blobs(300)
    given = labels.copy()
    given[[7, 10]] = (labels[[7, 10]] + 1) % 3  # both are of class 1, and say class 2
    features[10] = features[7] + 0.001  # the nearest of all, but a suspect itself
    features[13] = features[7] + 0.01
    found = judged(in_memory, features, given)
    (first,) = (item for item in found.findings if item.row == 7)
    suspects = {item.row for item in found.findings}
    assert first.neighbors[0] == 13
    assert len(first.neighbors) == 6
    assert not suspects & set(first.neighbors)
    assert {given[row] for row in first.neighbors} == {1}


def test_an_image_that_was_decided_to_be_left_out_shifts_no_other(in_memory):
    features, labels = blobs(300)
    labels[3] = -1
    given = labels.copy()
    given[7] = (labels[7] + 1) % 3
    found = judged(in_memory, features, given)
    assert found.findings[0].row == 7
    assert 3 not in {item.row for item in found.findings}


def test_features_that_do_not_know_the_classes_suspect_nothing_and_say_so(in_memory):
    features, labels = blobs(300)
    features = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    found = judged(in_memory, features, labels)
    assert found.findings == []
    assert "cannot tell these classes apart" in found.notes[0]


def test_classes_with_too_few_images_are_not_judged_and_named(in_memory):
    features, labels = blobs(300)
    few = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:9]])
    found = judged(in_memory, features[few], labels[few])
    assert {item.label for item in found.findings} <= {0, 1}
    assert found.notes[-1].endswith("fewer than 10 images: the labels of class 2.")
    some = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 2)[:9]])
    found = judged(in_memory, features[some], labels[some])
    assert found.findings == []
    assert found.notes == ["Labels were not judged: that takes two classes of 10 images each, at least."]


def test_neighbors_point_the_same_way_and_are_never_the_image_itself():
    features = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3], [-1, 0]], np.float32)
    assert neighbors(features, np.array([0, 3]), np.arange(5), 2).tolist() == [[1, 3], [2, 1]]
    assert neighbors(features, np.array([0]), np.array([2, 4]), 5).tolist() == [[2, 4]]
    assert neighbors(features, np.array([0]), np.array([0]), 3).shape == (1, 0)


def test_the_posterior_says_how_often_a_label_is_right_where_mistakes_have_a_direction():
    random = np.random.default_rng(0)
    count, mistakes = 20_000, np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.0, 0.1, 0.9]])  # by true class, then label
    belief = random.dirichlet([0.3] * 3, count)  # of the true class, as the image shows it
    true = (random.random(count)[:, None] > belief.cumsum(axis=1)).sum(axis=1)
    given = (random.random(count)[:, None] > mistakes[true].cumsum(axis=1)).sum(axis=1)
    posterior = true_class_posterior((belief @ mistakes).astype(np.float32), given)
    assert posterior.dtype == np.float32
    assert np.allclose(posterior.sum(axis=1), 1)
    certainty = posterior[np.arange(count), given]
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        some = (certainty >= low) & (certainty < high)
        assert some.sum() > 100
        assert abs((given == true)[some].mean() - certainty[some].mean()) < 0.12
    assert abs(certainty.mean() - (given == true).mean()) < 0.05


def test_labels_of_many_images_are_judged_without_holding_their_vectors(in_memory, tmp_path, monkeypatch):
    count, width, late = 10_000, 320, 48

    def facts_of(images, features_ND, probabilities_NK, answer):  # the largest part of a learning curve
        answer(np.arange(0, count, 2))
        return ClassFacts([], [], None)

    for module, name, value in (
        *((label_errors, limit, 1000) for limit in ("MOST_FITTED", "MOST_NEIGHBORS")),
        *((label_errors, "PENALTIES", (0.3,)), (label_errors, "PENALTIES_OF_PARTS", (0.3,))),
        *((label_errors, "class_facts", facts_of), (vectors, "BLOCK", 500)),
    ):
        monkeypatch.setattr(module, name, value)
    labels = np.arange(count) % 2
    both = np.lib.format.open_memmap(tmp_path / "both.npy", "w+", np.float32, (count, width + late))
    both[:] = np.random.default_rng(0).normal(size=both.shape)
    both[:, 0] += 4 * labels
    embedding = Embedding(np.arange(count), Vectors([both[:, :width]]), Vectors([both[:, width:]]), "made-up", 0)
    images = in_memory(labels.tolist())
    tracemalloc.start()
    found = find_label_errors(images, embedding)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "gave 9" in found.notes[0]  # per cent of them the class that they have
    assert peak < 0.75 * both.nbytes  # twice as much as all of it where what is judged is copied
