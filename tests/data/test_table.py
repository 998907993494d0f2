import numpy as np
import pytest

from edgekit.data import read_source
from edgekit.errors import DataError


def write(path, text):
    path.write_text(text)
    return str(path)


FLOWERS = "width,height,species\n1,2.5,rose\n3,4,iris\n-1,1e2,rose\n"


def test_numbers_are_inputs_and_words_are_classes(tmp_path):
    data = read_source(write(tmp_path / "a.csv", FLOWERS) + "?label=species")
    assert (data.classes, data.labels, data.features) == (["iris", "rose"], [1, 0, 1], ["width", "height"])
    inputs, label = data[2]
    assert inputs.dtype == np.float32
    assert (inputs.tolist(), label, len(data)) == ([-1.0, 100.0], 1, 3)


def test_features_may_be_named(tmp_path):
    data = read_source(write(tmp_path / "a.csv", FLOWERS) + "?label=species&features=height,width")
    assert data[0][0].tolist() == [2.5, 1.0]


def test_whole_numbers_are_classes_and_others_are_quantities(tmp_path):
    whole = read_source(write(tmp_path / "a.csv", "y;x\n4;1\n0;2\n"))
    assert (whole.labels, hasattr(whole, "classes"), whole[0][1]) == ([4, 0], False, 4)
    quantity = read_source(write(tmp_path / "b.tsv", "target\tx\n0.5\t1\n2\t2\n"))
    assert (quantity[0][1], hasattr(quantity, "labels")) == (np.float32(0.5), False)


def test_data_may_have_no_label(tmp_path):
    data = read_source(write(tmp_path / "a.csv", "x,z\n1,2\n") + "?label=")
    assert data[0].tolist() == [1.0, 2.0]


def test_a_column_of_paths_is_a_column_of_images(tmp_path, png, prepare):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(51))
    text = "file,label,remark\nin/a.png,cat,x\nin/b.png,dog,y\n"
    data = read_source(write(tmp_path / "a.csv", text), image=prepare)
    image, label = data[0]
    assert (image.shape, label, data.classes) == ((3, 4, 6), 0, ["cat", "dog"])
    assert np.allclose(image, 51 / 255)
    with pytest.raises(DataError, match=r"cannot read in/b\.png") as caught:
        data[1]
    assert caught.value.where.endswith("a.csv, line 3")


def test_a_text_goes_through_the_model_s_tokenizer(tmp_path, tokenize):
    data = read_source(write(tmp_path / "a.csv", 'say,y\n"no, not",1\nyes,0\n') + "?text=say", text=tokenize)
    assert (data[0][0]["input_ids"].tolist(), data[0][1]) == ([110, 111, 44, 32], 1)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (FLOWERS, "", ("the columns are width, height, species", "a.csv", "name it: a.csv?label=COLUMN")),
        (FLOWERS, "?label=specis", ("no column 'specis'", "a.csv?label=specis", "did you mean species?")),
        (FLOWERS, "?label=width", ("species is 'rose'", "a.csv, line 2", "a.csv?features=height,species")),
        (FLOWERS, "?label=species&features=hight", ("no column 'hight'", "?features=hight", "did you mean height?")),
        (FLOWERS, "?label=width&text=species", ("a text, but nothing says", "?text=species", "tokenize beforehand")),
        ("y,x\n1,2\n1\n", "", ("1 values", "a.csv, line 3", "")),
        ("y,x\n,2\n", "", ("no y", "a.csv, line 2", "remove the row")),
        ("y,y\n1,2\n", "", ("the first line is 'y,y'", "a.csv", "")),
        ("y,x\n", "", ("0 rows follow", "a.csv", "")),
        ("y\n1\n", "", ("no column but the label", "a.csv", "")),
        ("y,x\n1,a.png\n", "", ("images, but nothing says", "a.csv", "--image-size")),
    ],
)
def test_the_faults_of_tables(tmp_path, text, options, said):
    problem, where, way_out = said
    with pytest.raises(DataError) as caught:
        read_source(write(tmp_path / "a.csv", text) + options)
    assert problem in caught.value.problem
    assert where in caught.value.where
    assert way_out in caught.value.way_out


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_source(str(tmp_path / "a.csv?label=x"))
