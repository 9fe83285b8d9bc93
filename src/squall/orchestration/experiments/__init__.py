"""One experiment: which targets, in which phase, until when."""
