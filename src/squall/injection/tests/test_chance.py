from squall.injection.chance import wilson


def test_the_interval_holds_the_share_it_was_drawn_from():
    low, high = wilson(100, 1000)
    assert 0.07 < low < 0.1 < high < 0.14
    assert wilson(0, 50)[0] == 0
    assert wilson(50, 50)[1] == 1
