"""The cluster's kernel bench, without a cluster: which nodes run it, and what is read from them."""

import kernel_bench


def test_living_nodes_with_a_gpu_in_a_fixed_order() -> None:
    nodes = [
        {"NodeID": "c", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}},
        {"NodeID": "b", "Alive": False, "Resources": {"GPU": 1.0}},
        {"NodeID": "d", "Alive": True, "Resources": {"CPU": 8.0}},
        {"NodeID": "a", "Alive": True, "Resources": {"GPU": 1.0}},
    ]
    assert kernel_bench.gpu_nodes(nodes) == ["a", "c"]


def test_the_last_line_of_a_page_is_its_json() -> None:
    assert kernel_bench.last_json('shape | us\nprompts | 1\n{"bench": "x"}\n') == {"bench": "x"}
