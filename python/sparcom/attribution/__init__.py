"""Attribution: how much each neuron does for the likelihood of a reference answer."""
