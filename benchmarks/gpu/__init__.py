"""Everything that is measured on a GPU, in stages that each keep what they have found."""
