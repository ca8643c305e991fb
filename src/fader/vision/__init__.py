"""Networks, losses and transforms that several systems share, and pretrained backbones."""
