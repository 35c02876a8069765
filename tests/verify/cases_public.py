"""Mistakes and conventions that people met in public, as formulas.

Each case is a formula in our own words and the place where it was discussed: an
issue, a pull request or a review that says the form is wrong (``CONVICT``), or a
question whose answer is that it is right (``ACQUIT``). ``against`` is the card the
discussion compares with; the formula is read exactly as a user would type it.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    against: str
    formula: str
    where: str  # repository#number on GitHub
    says: str = ""


CONVICT = [
    # attention
    Case("attention", r"\mathrm{softmax}(QK^T)V", "mlc-ai/mlc-llm#3426", "no scale"),
    Case(
        "attention",
        r"\mathrm{softmax}\left(QK^T \sqrt{d_k}\right)V",
        "AI-Hypercomputer/maxtext#1370",
        "divided by the inverse root",
    ),
    Case(
        "attention",
        r"\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_v}}\right)V",
        "juho-lee/set_transformer#18",
        "the values' size",
    ),
    Case("attention", "QK^T V", "flexflow/flexflow-train#467", "softmax and scale left out"),
    Case(
        "attention",
        r"\mathrm{softmax}\left(\frac{QK^T V}{\sqrt{d_k}}\right)",
        "nndl/nndl#469",
        "V inside the softmax",
    ),
    Case(
        "attention",
        r"\mathrm{softmax}\left(\frac{QQ^T}{\sqrt{d_k}}\right)V",
        "datawhalechina/learn-nlp-with-transformers#40",
        "q times q",
    ),
    Case(
        "attention",
        r"V\,\mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)",
        "probml/pml-book#707",
        "factors in the wrong order",
    ),
    Case(
        "attention",
        r"\mathrm{softmax}\left(\frac{QV^T}{\sqrt{d_k}}\right)V",
        "cneuralnetwork/solving-ml-papers#1",
        "queries times values",
    ),
    Case(
        "attention",
        "softmax(Q @ K.T, axis=0) / sqrt(d_k) @ V",
        "nerminnuraydogan/vision-transformer#1",
        "softmax over the queries",
    ),
    # layer norm and its relatives
    Case(
        "layer-norm",
        r"\gamma \odot \frac{x-\mu}{\sigma+\epsilon}+\beta",
        "hkproj/pytorch-transformer#31",
        "ε outside the root",
    ),
    Case(
        "layer-norm",
        r"\gamma \odot \frac{x-\mu}{\sqrt{\sigma+\epsilon}}+\beta",
        "hyunwoongko/transformer#7",
        "the root of a standard deviation",
    ),
    Case(
        "layer-norm",
        r"\gamma \odot \frac{x-\mu}{(\sigma^2+\epsilon)^2}+\beta",
        "131250208/TPlinker-joint-extraction#37",
        "a square for a root",
    ),
    Case(
        "layer-norm",
        r"\gamma \odot \frac{x-\mu}{\sqrt{\frac{1}{d-1}\sum_{i=1}^{d}(x_i-\mu)^2+\epsilon}}+\beta",
        "codertimo/BERT-pytorch#30",
        "unbiased variance",
    ),
    Case(
        "rms-norm",
        r"\frac{x}{\frac{1}{\sqrt{\frac{1}{d}\sum_{i=1}^{d}x_i^2+\epsilon}}} \odot \gamma",
        "mosaicml/llm-foundry#371",
        "divided by the reciprocal root",
    ),
    Case(
        "rms-norm",
        r"\frac{x}{\sqrt{\frac{1}{d}\sum_{i=1}^{d}x_i^2}+\epsilon} \odot \gamma",
        "allenai/OLMo#281",
        "ε outside the root",
    ),
    Case(
        "rms-norm",
        r"\frac{x}{\sqrt{\sqrt{\frac{1}{d}\sum_{i=1}^{d}x_i^2+\epsilon}}} \odot \gamma",
        "pytorch/pytorch#136727",
        "a root too many",
    ),
    Case(
        "batch-norm",
        r"\gamma \frac{x-\mu}{\sigma^2+\epsilon}+\beta",
        "tensorflow/tensorflow#48039",
        "no root",
    ),
    Case(
        "batch-norm",
        r"\gamma \frac{x-\mu}{(\sigma^2+\epsilon)^2}+\beta",
        "jax-ml/jax#442",
        "a square for a root",
    ),
    Case(
        "batch-norm",
        r"\gamma \frac{x-\mu}{\sqrt{\sigma^2}+\epsilon}+\beta",
        "pytorch/pytorch#1804",
        "ε outside the root",
    ),
    # positions
    Case(
        "sinusoidal-odd",
        r"\cos\left(\frac{pos}{10000^{(2i+1)/d_{model}}}\right)",
        "luhengshiwo/LLMForEverybody#106",
        "the cosine's exponent is 2i as well",
    ),
    Case(
        "sinusoidal-even",
        r"\sin\left(\frac{pos}{10000^{4i/d_{model}}}\right)",
        "SamLynnEvans/Transformer#25",
        "the index doubled twice",
    ),
    Case(
        "sinusoidal-even",
        r"\sin\left(pos \cdot 10000^{2i/d_{model}}\right)",
        "hkproj/pytorch-transformer#2",
        "multiplied and not divided",
    ),
    Case(
        "sinusoidal-even",
        r"\sin\left(\frac{pos}{1000^{2i/d_{model}}}\right)",
        "maxjcohen/transformer#62",
        "base 1000",
    ),
    # activations
    Case(
        "gelu-tanh",
        r"x \cdot \frac{x}{2}\left(1+\tanh\left(\sqrt{\frac{2}{\pi}}(x+0.044715x^3)\right)\right)",
        "tensorflow/tensorflow#50510",
        "Φ with a factor x",
    ),
    Case("swiglu", r"\mathrm{Swish}(xW \odot xV)", "Nijikadesu/breakdown-minimind#3"),
    Case(
        "swiglu",
        r"\mathrm{Swish}(xW)",
        "google-research/timesfm#493",
        "no gate at all",
    ),
    # losses
    Case(
        "label-smoothing",
        r"(1-\epsilon-\frac{\epsilon}{K})y+\frac{\epsilon}{K}",
        "eladhoffer/utils.pytorch#14",
        "ε/K taken twice",
    ),
    Case(
        "label-smoothing",
        r"(1-\frac{\epsilon}{K})y+\frac{\epsilon}{K}",
        "ildoonet/pytorch-randaugment#30",
        "the target keeps too much",
    ),
    Case(
        "label-smoothing",
        r"(1-\epsilon)y+\frac{\epsilon}{K-1}",
        "pytorch/pytorch#7455",
        "sums to more than one",
    ),
    Case(
        "label-smoothing",
        r"(1-\epsilon\frac{K}{K-1})y+\frac{\epsilon}{K}",
        "fastai/fastai#1814",
        "ε scaled by K/(K−1)",
    ),
    Case(
        "cross-entropy",
        r"\log\left(\frac{\sum_j y_j e^{z_j}}{\sum_j e^{z_j}}\right)",
        "google-deepmind/optax#1040",
        "the sign and the logarithm's place",
    ),
    Case("cross-entropy-gradient", "y - p", "haifengl/smile#151", "the sign"),
    Case(
        "perplexity",
        r"\sqrt{-\frac{1}{N}\sum_{i=1}^{N}\log p_i}",
        "SocialComplexityLab/life2vec#8",
        "a root for the exponential",
    ),
    Case(
        "perplexity",
        r"-\frac{1}{N}\sum_{i=1}^{N}\log p_i",
        "IINemo/lm-polygraph#273",
        "no exponential",
    ),
    Case(
        "perplexity",
        r"2^{-\frac{1}{N}\sum_{i=1}^{N}\ln p_i}",
        "huggingface/evaluate#241",
        "base 2 on natural logarithms",
    ),
    Case("kl-divergence", r"\sum_i q_i \log\frac{q_i}{p_i}", "probml/pml-book#11", "reversed"),
    Case(
        "kl-divergence",
        r"\sum_i p_i \frac{p_i}{q_i}",
        "rasbt/machine-learning-book#44",
        "no logarithm",
    ),
    Case(
        "kl-divergence",
        r"\sum_i (p_i \log p_i - \log q_i)",
        "caglar/autoencoders#5",
        "misplaced brackets",
    ),
    Case(
        "dpo",
        r"-\log\sigma\left(\beta\left(\beta\log\frac{\pi_\theta(y_w|x)}{\pi_{ref}(y_w|x)}"
        r"-\beta\log\frac{\pi_\theta(y_l|x)}{\pi_{ref}(y_l|x)}\right)\right)",
        "AI-Hypercomputer/maxtext#1530",
        "β twice",
    ),
    Case(
        "dpo",
        r"-\log\sigma\left(\beta\log\frac{\pi_\theta(y_w|x)}{\pi_{ref}(y_w|x)}\right)",
        "haozheji/exact-optimization#2",
        "the rejected answer left out",
    ),
    Case(
        "skip-gram",
        r"\log\sigma(u_o^T v_c) + \log\sigma\left(-\sum_{i=1}^{K} N_i^T v_c\right)",
        "DSKSD/DeepNLP-models-Pytorch#15",
        "the sum inside the logarithm",
    ),
    Case(
        "glove",
        r"\sum_{i,j} f(X_{ij})(w_i^T \tilde{w}_j + b_i + \tilde{b}_j + \log X_{ij})^2",
        "noaRricky/pytorch-glove#1",
        "the sign of the logarithm",
    ),
    Case(
        "glove",
        r"\sum_{i,j} f(X_{ij})(w_i^T \tilde{w}_j + b_i + \tilde{b}_j - \log X_{ij})",
        "maciejkula/glove-python#22",
        "not squared",
    ),
    # optimisation
    Case(
        "adam",
        r"\theta - \alpha\frac{\hat{m}_t}{\sqrt{\hat{v}_t+\epsilon}}",
        "d2l-ai/d2l-zh#502",
        "ε inside the root",
    ),
    Case(
        "adam",
        r"\theta - \alpha\frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t}\frac{m_t}{\sqrt{v_t}+\epsilon}",
        "karpathy/nanochat#304",
        "ε not scaled with the second moment",
    ),
    Case(
        "gradient-clipping",
        r"g \cdot \frac{c}{\|g\|}",
        "DingfanChen/GS-WGAN#5",
        "small gradients are scaled up",
    ),
    Case(
        "noam",
        r"warmup^{0.5} \cdot \min(step^{-0.5}, step \cdot warmup^{-1.5})",
        "Kyubyong/transformer#89",
        "the warm-up in place of d_model",
    ),
    Case(
        "xavier",
        r"\sqrt{\frac{6}{n_{in}}+n_{out}}",
        "mlverse/torch#555",
        "missing brackets",
    ),
    Case("xavier", r"\frac{6}{n_{in}+n_{out}}", "SethHWeidman/DLFS_code#10", "no root"),
    Case("xavier", r"\sqrt{\frac{12}{n_{in}+n_{out}}}", "Lasagne/Lasagne#787", "12 for 6"),
    # other
    Case("dropout", r"\frac{m \odot x}{p}", "rasbt/LLMs-from-scratch#431", "p for 1 − p"),
    Case("dropout", r"m \odot x", "keras-team/keras#3305", "not scaled"),
    Case(
        "embedding-scale",
        r"\frac{E}{\sqrt{d_{model}}}",
        "pytorch/tutorials#2849",
        "divided and not multiplied",
    ),
    Case("embedding-scale", "E", "SamLynnEvans/Transformer#10", "no scale"),
    Case("lora", r"W x + \alpha B A x", "rasbt/LLMs-from-scratch#1080", "not divided by r"),
    Case(
        "lora",
        r"W x + \frac{\alpha}{\sqrt{r}} B A x",
        "dphnAI/sonar#647",
        "another method's scale",
    ),
    Case(
        "attention-backward",
        r"P \odot (1-P) \odot \mathrm{dP}",
        "deeplearning4j/libnd4j#440",
        "the diagonal of the Jacobian only",
    ),
    Case(
        "alibi",
        "q_i^T k_j + m(i - j)",
        "labmlai/annotated_deep_learning_paper_implementations#226",
        "the sign of the distance",
    ),
]

ACQUIT = [
    Case(
        "attention", r"\mathrm{softmax}\left(\frac{Q}{\sqrt{d_k}}K^T\right)V", "getalp/Flaubert#45"
    ),
    Case("attention", r"\mathrm{softmax}\left((Q d_k^{-1/2})K^T\right)V", "Shen-Lab/TALE#5"),
    Case("attention", "softmax(Q @ K.T * d_k**-0.5) @ V", "karpathy/ng-video-lecture#6"),
    Case(
        "softmax",
        r"\frac{e^{x_i-\max_j x_j}}{\sum_j e^{x_j-\max_k x_k}}",
        "amdegroot/ssd.pytorch#203",
        "shifted by the largest",
    ),
    Case("softmax", r"\frac{e^{x_i}}{\sum_j e^{x_j}}", "datawhalechina/tiny-universe#17"),
    Case("log-softmax", r"x_i - \log\sum_j e^{x_j}", "pytorch/executorch#3411"),
    Case(
        "log-softmax",
        r"x_i - \max(x) - \log\sum_{j=1}^{n} e^{x_j-\max(x)}",
        "Open-Deep-ML/DML-OpenProblem#20",
    ),
    Case(
        "attention-backward",
        r"P_{ij}\left(\mathrm{dP}_{ij}-\sum_k \mathrm{dP}_{ik} P_{ik}\right)",
        "HomericIntelligence/Odyssey#2134",
    ),
    Case(
        "layer-norm",
        r"\gamma \odot (x-\mu)(\sigma^2+\epsilon)^{-1/2}+\beta",
        "allenai/OLMo#282",
        "multiplied by the reciprocal root",
    ),
    Case(
        "layer-norm",
        r"\gamma \odot \frac{x-\mathbb{E}[x]}"
        r"{\sqrt{\mathbb{E}[x^2]-\mathbb{E}[x]^2+\epsilon}}+\beta",
        "camlab-ethz/poseidon#6",
        "the variance as E[x²] − E[x]²",
    ),
    Case(
        "rms-norm",
        r"x \left(\frac{1}{d}\sum_{i=1}^{d}x_i^2+\epsilon\right)^{-1/2} \odot \gamma",
        "hkproj/pytorch-llama#2",
        "rsqrt is a division already",
    ),
    Case(
        "sinusoidal-even",
        r"\sin\left(pos \cdot e^{-2i \ln(10000)/d_{model}}\right)",
        "hkproj/pytorch-transformer#2",
        "the code beside the wrong comment is right",
    ),
    Case(
        "sinusoidal-odd",
        r"\cos\left(\frac{pos}{10000^{2i/d_{model}}}\right)",
        "datawhalechina/happy-llm#23",
        "2i for both, as in the paper",
    ),
    Case(
        "gelu",
        r"x \cdot \frac{1}{2}\left[1+\mathrm{erf}(x/\sqrt{2})\right]",
        "openvinotoolkit/openvino#5439",
    ),
    Case(
        "gelu-tanh",
        r"0.5x\left(1+\tanh\left(x\sqrt{2/\pi}(1+0.044715x^2)\right)\right)",
        "hendrycks/GELUs#1",
        "Horner's form",
    ),
    Case("silu", r"\frac{x}{1+e^{-x}}", "joaopauloschuler/neural-api#21"),
    Case(
        "perplexity", r"2^{-\frac{1}{N}\sum_{i=1}^{N}\log_2 p_i}", "facebookresearch/fairseq#5464"
    ),
    Case("cross-entropy-gradient", "p - y", "apache/mxnet#7944"),
    Case("dropout", r"\frac{m \odot x}{1-p}", "pytorch/pytorch#5752"),
    Case("lora", r"W x + \frac{\alpha}{r} B A x", "microsoft/LoRA#101"),
    Case(
        "adam",
        r"\theta - \alpha\frac{m_t/(1-\beta_1^t)}{\sqrt{v_t}/\sqrt{1-\beta_2^t}+\epsilon}",
        "pytorch/pytorch#41477",
        "the root taken apart",
    ),
    Case(
        "skip-gram",
        r"\log\sigma(u_o^T v_c) + \sum_{i=1}^{K} \log\sigma(-N_i^T v_c)",
        "kefirski/pytorch_NEG_loss#5",
    ),
    Case("embedding-scale", r"E \cdot \sqrt{d_{model}}", "wenet-e2e/wenet#45"),
    Case("mup-attention", r"\mathrm{softmax}\left(\frac{QK^T}{d}\right)V", "thegregyang/NTK4A#3"),
]
