"""Numbers that EvaluationTests compare with: python3 evaluation.py (numpy, scipy, scikit-image)."""

import numpy, scipy, skimage
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

print("numpy", numpy.__version__, "scipy", scipy.__version__, "scikit-image", skimage.__version__)


def frechet(mean_a, a, mean_b, b):
    """Heusel et al. 2017 as in pytorch-fid."""
    d = mean_a - mean_b
    return d @ d + numpy.trace(a + b - 2 * sqrtm(a @ b).real)


a = numpy.array([[4.0, 1.0, -0.5], [1.0, 3.0, 0.25], [-0.5, 0.25, 2.0]])
b = numpy.array([[1.5, -0.5, 0.25], [-0.5, 2.5, 0.75], [0.25, 0.75, 5.0]])
mean_a, mean_b = numpy.array([1.0, -2.0, 0.5]), numpy.array([0.25, -1.0, 0.0])
print("frechet, parameters:", repr(float(frechet(mean_a, a, mean_b, b))))


def lattice(count, dimension, multiplier, modulus):
    """Integers that any language makes alike, as samples × features."""
    index = numpy.arange(count * dimension, dtype=numpy.int64)
    return ((index * index * multiplier + 17 * index) % modulus).reshape(count, dimension) / modulus


x, y = lattice(40, 6, 7, 251), lattice(50, 6, 11, 257) * 1.5 + 0.1
fit = lambda s: (s.mean(0), numpy.cov(s, rowvar=False))
print("frechet, samples:", repr(float(frechet(*fit(x), *fit(y)))))
scale = x.std(0, ddof=1)
print("standardized:", repr(float(frechet(*fit((y - x.mean(0)) / scale), *fit((x - x.mean(0)) / scale)))))


def clip(multiplier, frames=2, height=16, width=20):
    index = numpy.arange(frames * height * width * 3, dtype=numpy.int64)
    smooth = 128 + 90 * ((index // 3 % width) - width / 2) / width
    noise = (index * index * multiplier + 31 * index) % 61
    return (smooth.astype(numpy.int64) + noise - 30).astype(numpy.uint8).reshape(frames, height, width, 3)


p, q = clip(5), clip(13)
print("psnr:", repr(float(peak_signal_noise_ratio(q, p, data_range=255))))
ssim = [
    structural_similarity(
        f, g, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255)
    for f, g in zip(p, q)
]
print("ssim:", repr(float(numpy.mean(ssim))))
