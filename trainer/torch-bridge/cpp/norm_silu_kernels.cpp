#include "norm_silu_kernels.h"

#include <bit>
#include <cstring>

// One body, compiled for several instruction sets; the loader picks the best one that the machine has.
#if defined(__x86_64__)
#define PER_MACHINE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PER_MACHINE
#endif
#define INLINE [[gnu::always_inline]] inline

namespace torch_bridge::kernels {

namespace {

// Sixteen channels at a time, in as many registers as the machine needs for them.
constexpr std::int64_t LANES = 16;
using Floats = float __attribute__((vector_size(4 * LANES)));
using Words = std::uint32_t __attribute__((vector_size(4 * LANES)));
using Halves = std::uint16_t __attribute__((vector_size(2 * LANES)));

template <class To, class From>
INLINE To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// Reads and writes 16 channels, or those that are left over, which the other lanes do not see.
struct All {
  template <class T>
  INLINE void copy(T* to, const T* from) const {
    std::memcpy(to, from, LANES * sizeof(T));
  }
};

struct Some {
  std::int64_t count;
  template <class T>
  INLINE void copy(T* to, const T* from) const {
    std::memcpy(to, from, count * sizeof(T));
  }
};

template <class Lanes>
INLINE Floats load(const float* from, Lanes lanes) {
  Floats values{};
  lanes.copy(reinterpret_cast<float*>(&values), from);
  return values;
}

template <class Lanes>
INLINE Floats load(const bfloat16* from, Lanes lanes) {
  Halves halves{};
  lanes.copy(reinterpret_cast<bfloat16*>(&halves), from);
  return bits<Floats>(__builtin_convertvector(halves, Words) << 16);
}

template <class Lanes>
INLINE void store(float* to, const Floats& values, Lanes lanes) {
  lanes.copy(to, reinterpret_cast<const float*>(&values));
}

// Rounds to nearest, ties to even; NaN stays NaN.
template <class Lanes>
INLINE void store(bfloat16* to, const Floats& values, Lanes lanes) {
  const auto words = bits<Words>(values);
  const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const Words quiet = (words >> 16) | 0x40;
  const auto halves = __builtin_convertvector(values == values ? rounded : quiet, Halves);
  lanes.copy(to, reinterpret_cast<const bfloat16*>(&halves));
}

// exp(x) within 2 units in the last place: x = n ln 2 + r, exp(r) by the polynomial of Cephes (S. Moshier,
// "Methods and Programs for Mathematical Functions", 1989). x is taken to be at least -87 and at most 88.
INLINE Floats exponential(Floats x) {
  x = x > 88.0F ? Floats{} + 88.0F : x;
  x = x < -87.0F ? Floats{} - 87.0F : x;
  // What 1.5 * 2^23 is added to loses its fraction, and is left in the low bits.
  const Floats shifted = x * 1.44269504088896341F + 12582912.0F;
  const Floats n = shifted - 12582912.0F;
  const Floats r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + (r + 1.0F);
  // Adds n to the exponent.
  return bits<Floats>(bits<Words>(p) + (bits<Words>(shifted) << 23));
}

INLINE Floats sigmoid(const Floats& y) {
  return 1.0F / (1.0F + exponential(-y));
}

// Calls `body(channel, lanes)` for all channels, sixteen at a time.
template <class Body>
INLINE void for_channels(std::int64_t channels, Body body) {
  std::int64_t c = 0;
  for (; c + LANES <= channels; c += LANES) {
    body(c, All{});
  }
  if (c < channels) {
    body(c, Some{channels - c});
  }
}

template <class T>
INLINE void moments_of(
    const T* x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const Floats from = load(shift + c, lanes);
    Floats sums{}, squares{};
    for (std::int64_t row = 0; row < rows; ++row) {
      const Floats d = load(x + row * channels + c, lanes) - from;
      sums += d;
      squares += d * d;
    }
    store(sum + c, load(sum + c, lanes) + sums, lanes);
    store(square + c, load(square + c, lanes) + squares, lanes);
  });
}

template <class T>
INLINE void forward_of(const T* x, std::int64_t rows, std::int64_t channels, Affine affine, T* out) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const Floats mean = load(affine.mean + c, lanes);
    const Floats scale = load(affine.scale + c, lanes);
    const Floats bias = load(affine.bias + c, lanes);
    for (std::int64_t i = c; i < rows * channels; i += channels) {
      const Floats y = (load(x + i, lanes) - mean) * scale + bias;
      store(out + i, y * sigmoid(y), lanes);
    }
  });
}

template <class T>
INLINE void backward_y_of(
    const T* x, const T* grad_out, std::int64_t stride, std::int64_t rows, std::int64_t channels, Affine affine,
    T* grad_y, float* sum, float* product) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const Floats mean = load(affine.mean + c, lanes);
    const Floats scale = load(affine.scale + c, lanes);
    const Floats bias = load(affine.bias + c, lanes);
    Floats sums{}, products{};
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t i = row * channels + c;
      const Floats d = load(x + i, lanes) - mean;
      const Floats y = d * scale + bias;
      const Floats s = sigmoid(y);
      const Floats grad = load(grad_out + row * stride + c, lanes) * (s * (1.0F + y * (1.0F - s)));
      store(grad_y + i, grad, lanes);
      sums += grad;
      products += grad * d;
    }
    store(sum + c, load(sum + c, lanes) + sums, lanes);
    store(product + c, load(product + c, lanes) + products, lanes);
  });
}

template <class T>
INLINE void backward_x_of(const T* x, std::int64_t rows, std::int64_t channels, Backward backward, T* grad) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const Floats mean = load(backward.mean + c, lanes);
    const Floats scale = load(backward.scale + c, lanes);
    const Floats slope = load(backward.slope + c, lanes);
    const Floats offset = load(backward.offset + c, lanes);
    for (std::int64_t i = c; i < rows * channels; i += channels) {
      const Floats d = load(x + i, lanes) - mean;
      store(grad + i, load(grad + i, lanes) * scale + (d * slope + offset), lanes);
    }
  });
}

} // namespace

PER_MACHINE void moments(
    const float* x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square) {
  moments_of(x, rows, channels, shift, sum, square);
}

PER_MACHINE void moments(
    const bfloat16* x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square) {
  moments_of(x, rows, channels, shift, sum, square);
}

PER_MACHINE void forward(const float* x, std::int64_t rows, std::int64_t channels, Affine affine, float* out) {
  forward_of(x, rows, channels, affine, out);
}

PER_MACHINE void forward(const bfloat16* x, std::int64_t rows, std::int64_t channels, Affine affine, bfloat16* out) {
  forward_of(x, rows, channels, affine, out);
}

PER_MACHINE void backward_y(
    const float* x, const float* grad_out, std::int64_t stride, std::int64_t rows, std::int64_t channels,
    Affine affine, float* grad_y, float* sum, float* product) {
  backward_y_of(x, grad_out, stride, rows, channels, affine, grad_y, sum, product);
}

PER_MACHINE void backward_y(
    const bfloat16* x, const bfloat16* grad_out, std::int64_t stride, std::int64_t rows, std::int64_t channels,
    Affine affine, bfloat16* grad_y, float* sum, float* product) {
  backward_y_of(x, grad_out, stride, rows, channels, affine, grad_y, sum, product);
}

PER_MACHINE void backward_x(const float* x, std::int64_t rows, std::int64_t channels, Backward backward, float* grad) {
  backward_x_of(x, rows, channels, backward, grad);
}

PER_MACHINE void backward_x(
    const bfloat16* x, std::int64_t rows, std::int64_t channels, Backward backward, bfloat16* grad) {
  backward_x_of(x, rows, channels, backward, grad);
}

PER_MACHINE double sum_of_squares(const float* values, std::int64_t count) {
  // Short runs in float, their sums in double.
  constexpr std::int64_t RUN = 4096;
  double total = 0.0;
  for (std::int64_t begin = 0; begin < count; begin += RUN) {
    const std::int64_t length = count - begin < RUN ? count - begin : RUN;
    Floats sums{};
    for_channels(length, [&](std::int64_t i, auto lanes) __attribute__((always_inline)) {
      const Floats run = load(values + begin + i, lanes);
      sums += run * run;
    });
    for (std::int64_t lane = 0; lane < LANES; ++lane) {
      total += sums[lane];
    }
  }
  return total;
}

} // namespace torch_bridge::kernels
