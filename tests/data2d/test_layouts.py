"""Finding images and their labels in the layouts of the usual data sets."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from voxpool.data2d import CAMVID, CITYSCAPES, VOC, find_images
from voxpool.errors import InputError, UsageError


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def put_pair(image, labels, ids, shape=(6, 8)):
    put(image, np.zeros((*shape, 3)))
    put(labels, np.full(shape, ids))


def test_cityscapes(tmp_path):
    for split, city, stem in (("train", "aachen", "aachen_0"), ("val", "munster", "munster_0")):
        image = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        labels = tmp_path / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
        put_pair(image, labels, 7)
    put(tmp_path / "gtFine" / "val" / "munster" / "munster_0_gtFine_instanceIds.png", np.zeros((6, 8)))
    found = find_images(tmp_path)
    assert (found.layout, found.classes) == ("cityscapes", CITYSCAPES)
    assert [case.id for case in found.splits["train"]] == ["aachen_0"]
    assert found.splits["train"][0].instances is None
    assert found.splits["val"][0].instances.name == "munster_0_gtFine_instanceIds.png"
    classes = CITYSCAPES.from_file(np.array([[7, 8, 33, 0, 34]]), "a")
    assert classes.tolist() == [[0, 1, 18, 255, 255]]
    (tmp_path / "gtFine" / "train" / "aachen" / "aachen_0_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"aachen_0_leftImg8bit\.png has no labels"):
        find_images(tmp_path)


def voc(root):
    for name in ("a", "b", "c"):
        put_pair(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png", 1)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")


def test_voc_alone_and_with_sbd(tmp_path):
    voc(tmp_path / "VOC2012")
    found = find_images(tmp_path)
    assert (found.layout, found.classes) == ("voc", VOC)
    assert [case.id for case in found.splits["train"]] == ["a", "b"]
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    put(sbd / "img" / "d.jpg", np.zeros((6, 8, 3)))
    (sbd / "cls").mkdir()
    savemat(sbd / "cls" / "d.mat", {"GTcls": {"Segmentation": np.full((6, 8), 20, np.uint8)}})
    (sbd / "train.txt").write_text("a\nd\n")
    (sbd / "val.txt").write_text("c\n")
    train = find_images(tmp_path).splits["train"]
    # what VOC has is not taken twice, what it validates on is not trained on
    assert [case.id for case in train] == ["a", "b", "d"]
    assert (train[2].read_ids() == 20).all()
    train[2].labels.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"d\.mat is no label file of SBD"):
        train[2].read_ids()


def test_voc_with_sbds_label_images(tmp_path):
    voc(tmp_path)
    put_pair(tmp_path / "JPEGImages" / "e.jpg", tmp_path / "SegmentationClassAug" / "e.png", 5)
    put(tmp_path / "SegmentationClassAug" / "c.png", np.zeros((6, 8)))
    assert [case.id for case in find_images(tmp_path).splits["train"]] == ["a", "b", "e"]


def test_camvid(tmp_path):
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959")):
        put_pair(tmp_path / split / f"{name}.png", tmp_path / f"{split}annot" / f"{name}.png", 11)
    found = find_images(tmp_path)
    assert (found.layout, found.classes) == ("camvid", CAMVID)
    assert CAMVID.from_file(np.array([0, 10, 11]), "a").tolist() == [0, 10, 255]
    with pytest.raises(InputError, match=r"odd\.png holds the id 12"):
        CAMVID.from_file(np.array([12]), "odd.png")


@pytest.mark.parametrize(
    ("images", "labels"),
    [("{}/images", "{}/labels"), ("{}/images", "{}/masks"), ("images/{}", "labels/{}"), ("{}", "{}_labels")],
)
def test_folders_with_splits(tmp_path, images, labels):
    for split in ("train", "val"):
        for number in range(2):
            put_pair(
                tmp_path / images.format(split) / f"{number}.jpg", tmp_path / labels.format(split) / f"{number}.png", 3
            )
    found = find_images(tmp_path)
    assert found.layout == "folder"
    # nobody named the classes: as many as there are ids
    assert found.classes.names == ("0", "1", "2", "3")
    assert [len(found.splits[split]) for split in ("train", "val")] == [2, 2]
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\nship\n")
    assert find_images(tmp_path).classes.names == ("sky", "sea", "sand", "ship")
    assert find_images(tmp_path, class_names=("a", "b", "c", "d")).classes.names == ("a", "b", "c", "d")


def test_folders_without_splits_keep_every_fifth_for_validation(tmp_path):
    for number in range(10):
        put_pair(tmp_path / "images" / f"{number}.png", tmp_path / "masks" / f"{number}_mask.png", 1)
    splits = find_images(tmp_path).splits
    assert [case.id for case in splits["val"]] == ["4", "9"]
    assert len(splits["train"]) == 8


def test_what_is_no_data_set_is_told(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no images with labels"):
        find_images(tmp_path)
    with pytest.raises(UsageError, match="layout of images must be auto"):
        find_images(tmp_path, layout="ibsr")
    with pytest.raises(InputError, match="no ImageSets/Segmentation"):
        find_images(tmp_path, layout="voc")
    put(tmp_path / "train" / "a.png", np.zeros((6, 8, 3)))
    (tmp_path / "train_labels").mkdir()
    with pytest.raises(InputError, match=r"a\.png has no labels in train_labels"):
        find_images(tmp_path)
