"""minitransformer beside other frameworks: the same models, weights and batches in one process."""
