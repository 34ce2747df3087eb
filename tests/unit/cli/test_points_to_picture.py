"""Pictures of points on the line and in the plane."""

import numpy as np

from fount.cli.output.points import points_to_picture


def test_it_is_white_where_points_are():
    picture = points_to_picture(np.array([[0.99, 0.99]]), (-1.0, 1.0))
    assert picture.shape == (320, 320)
    assert np.argwhere(picture).tolist() == [[row, column] for row in range(4) for column in range(316, 320)]


def test_it_is_a_histogram_of_points_on_the_line():
    picture = points_to_picture(np.array([[-0.99], [-0.99], [0.99]]), (-1.0, 1.0))
    assert (picture[:, 0].sum(), picture[:, 160].sum(), picture[:, 319].sum()) == (320, 0, 160)


def test_it_leaves_out_points_beyond_the_range():
    assert not points_to_picture(np.array([[5.0, 0.0], [np.nan, 0.0]]), (-1.0, 1.0)).any()
