import io
import json
import tarfile

import numpy as np
import pytest

from edgekit.data import read_source
from edgekit.data.shards import expanded
from edgekit.errors import DataError


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_braces_are_those_of_shells():
    assert expanded("s-{08..11}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]
    assert expanded("{a,b}-{0..1}.tar") == ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]
    assert expanded("plain.tar") == ["plain.tar"]


def test_images_with_numbers_of_classes(tmp_path, png, prepare):
    tar(tmp_path / "s-0.tar", {"a/1.png": png(51), "a/1.cls": b"7", "a/2.png": png(102), "a/2.cls": b"3\n"})
    tar(tmp_path / "s-1.tar", {"3.cls": b"0", "3.png": png(153), "3.extra.txt": b"left alone"})
    data = read_source(str(tmp_path / "s-{0..1}.tar"), image=prepare)
    assert (len(data), data.labels) == (3, [7, 3, 0])
    assert [round(float(data[index][0].mean()) * 255) for index in (2, 0, 1)] == [153, 51, 102]


def test_arrays_with_words_in_json(tmp_path):
    files = {}
    for index, word in enumerate(("dog", "ant", "dog")):
        files[f"{index}.npy"] = npy(np.full((2, 2), index, np.float64))
        files[f"{index}.json"] = json.dumps({"kind": word}).encode()
    data = read_source(str(tar(tmp_path / "s.tar", files)) + "?label=kind")
    assert (data.classes, data.labels) == (["ant", "dog"], [1, 0, 1])
    assert (data[1][0].dtype, data[1][0].tolist()) == (np.float32, [[1, 1], [1, 1]])


def test_shards_that_webdataset_wrote_are_read_as_it_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    rng = np.random.default_rng(0)
    with webdataset.TarWriter(str(tmp_path / "s.tar")) as sink:
        for index in range(4):
            sink.write({"__key__": f"{index:04}", "x.npy": rng.normal(size=3).astype("f4"), "cls": index % 2})
    data = read_source(str(tmp_path / "s.tar"))
    with (tmp_path / "s.tar").open("rb") as file:
        entries = [{**each, "__url__": ""} for each in webdataset.tariterators.tar_file_iterator(file)]
    theirs = list(webdataset.tariterators.group_by_keys(entries))
    assert [int(each["cls"]) for each in theirs] == data.labels == [0, 1, 0, 1]
    arrays = [np.load(io.BytesIO(each["x.npy"])) for each in theirs]
    assert all(np.array_equal(x, data[index][0]) for index, x in enumerate(arrays))


def test_a_text_goes_through_the_model_s_tokenizer(tmp_path, tokenize):
    path = tar(tmp_path / "s.tar", {"1.txt": b"hello", "1.cls": b"1"})
    assert read_source(str(path), text=tokenize)[0][0]["input_ids"].tolist() == [104, 101, 108, 108]


@pytest.mark.parametrize(
    ("files", "options", "problem", "way_out"),
    [
        ({}, "", "no samples", ""),
        ({"1.npy": npy(np.ones(1)), "1.cls": b"cat"}, "", "got b'cat'", ""),
        ({"1.npy": npy(np.ones(1)), "1.json": b"{"}, "", "no JSON", ""),
        ({"1.npy": npy(np.ones(1)), "1.json": b'{"kinds": 1}'}, "?label=kind", "no 'kind'", "did you mean kinds?"),
        ({"1.npy": npy(np.ones(1)), "1.json": b'{"a": 1}'}, "", "no 'label'", "?label=ENTRY, one of a"),
        (
            {"1.npy": npy(np.ones(1)), "1.cls": b"1", "2.npy": npy(np.ones(1))},
            "",
            "2 has npy",
            "write the shards again",
        ),
        ({"1.png": b"", "1.cls": b"1"}, "", "images, but nothing says", "--image-size"),
        ({"1.txt": b"", "1.cls": b"1"}, "", "1 has txt, cls", ""),
        ({"1.npy": b"", "1.cls": b"1"}, "?input=jpg", "no .jpg that can be an input", ""),
        ({"1.npy": npy(np.ones(1))}, "?label=a", "no .json in 1", ""),
    ],
)
def test_the_faults_of_shards(tmp_path, files, options, problem, way_out):
    with pytest.raises(DataError) as caught:
        read_source(f"{tar(tmp_path / 's.tar', files)}{options}")
    assert problem in caught.value.problem
    assert way_out in caught.value.way_out


def test_shards_that_are_missing_compressed_or_torn(tmp_path):
    tar(tmp_path / "s-0.tar", {})
    with pytest.raises(DataError, match=r"no file .*s-1.tar"):
        read_source(str(tmp_path / "s-{0..1}.tar"))
    with pytest.raises(DataError, match="is compressed") as caught:
        read_source(str(tmp_path / "s.tar.gz"))
    assert "gunzip" in caught.value.way_out
    (tmp_path / "torn.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="cannot read"):
        read_source(str(tmp_path / "torn.tar"))
    path = tar(tmp_path / "n.tar", {"1.npy": b"no array"})
    with pytest.raises(DataError, match=r"cannot read 1.npy"):
        read_source(str(path))[0]
