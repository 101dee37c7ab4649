// Compiled for each instruction set by itself, whose name is MACHINE (build.rs); norm_silu_machines.cpp picks the best
// one that the machine has.
#include "norm_silu_kernels.h"

#include <cstring>

#define INLINE [[gnu::always_inline]] inline
#define TEXT_OF(word) #word
#define TEXT(word) TEXT_OF(word)

namespace torch_bridge::kernels {

namespace {

// As many channels at a time as a register holds. What is wider than one goes through memory, step by step.
#if defined(__AVX512F__)
constexpr std::int64_t LANES = 16;
#elif defined(__AVX2__)
constexpr std::int64_t LANES = 8;
#else
constexpr std::int64_t LANES = 4;
#endif

template <std::int64_t N>
struct Vectors {
  // GCC forgets the size in an alias.
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef std::uint32_t Words __attribute__((vector_size(4 * N)));
  typedef std::uint16_t Halves __attribute__((vector_size(2 * N)));
};

template <class To, class From>
INLINE To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

// Reads and writes a register of channels, or the first ones of a register, of which the others are 0.
template <std::int64_t N>
struct All : Vectors<N> {
  template <class T>
  INLINE void copy(T* to, const T* from) const {
    std::memcpy(to, from, N * sizeof(T));
  }
};

struct Some : Vectors<LANES> {
  std::int64_t count;
  template <class T>
  INLINE void copy(T* to, const T* from) const {
    std::memcpy(to, from, count * sizeof(T));
  }
};

template <class Lanes>
INLINE auto load(const float* from, Lanes lanes) {
  typename Lanes::Floats values{};
  lanes.copy(reinterpret_cast<float*>(&values), from);
  return values;
}

template <class Lanes>
INLINE auto load(const bfloat16* from, Lanes lanes) {
  typename Lanes::Halves halves{};
  lanes.copy(reinterpret_cast<bfloat16*>(&halves), from);
  if constexpr (sizeof(halves) == 32) {
    // GCC would widen each half of them by itself.
    return bits<typename Lanes::Floats>(__builtin_shufflevector(
        halves, decltype(halves){}, 16, 0, 16, 1, 16, 2, 16, 3, 16, 4, 16, 5, 16, 6, 16, 7, 16, 8, 16, 9, 16, 10, 16, 11,
        16, 12, 16, 13, 16, 14, 16, 15));
  } else {
    return bits<typename Lanes::Floats>(__builtin_convertvector(halves, typename Lanes::Words) << 16);
  }
}

template <class Floats, class Lanes>
INLINE void store(float* to, const Floats& values, Lanes lanes) {
  lanes.copy(to, reinterpret_cast<const float*>(&values));
}

// Rounds to nearest, ties to even; NaN stays NaN.
template <class Floats, class Lanes>
INLINE void store(bfloat16* to, const Floats& values, Lanes lanes) {
  using Words = typename Lanes::Words;
  const auto words = bits<Words>(values);
  const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const Words quiet = (words >> 16) | 0x40;
  const auto halves = __builtin_convertvector(values == values ? rounded : quiet, typename Lanes::Halves);
  lanes.copy(to, reinterpret_cast<const bfloat16*>(&halves));
}

// exp(x) within 2 units in the last place: x = n ln 2 + r, exp(r) by the polynomial of Cephes (S. Moshier,
// "Methods and Programs for Mathematical Functions", 1989). x is taken to be at least -87 and at most 88.
template <class Lanes, class Floats = typename Lanes::Floats, class Words = typename Lanes::Words>
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

template <class Lanes, class Floats = typename Lanes::Floats>
INLINE Floats sigmoid(const Floats& y, Lanes) {
  return 1.0F / (1.0F + exponential<Lanes>(-y));
}

// Calls `body(channel, lanes)` for all channels, a register of them at a time. Models have multiples of eight channels,
// mostly.
template <class Body>
INLINE void for_channels(std::int64_t channels, Body body) {
  std::int64_t c = 0;
  for (; c + LANES <= channels; c += LANES) {
    body(c, All<LANES>{});
  }
  if (LANES > 8 && c + 8 <= channels) {
    body(c, All<8>{});
    c += 8;
  }
  if (c < channels) {
    body(c, Some{{}, channels - c});
  }
}

template <class T>
void moments_of(
    Rows<const T> x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const auto from = load(shift + c, lanes);
    typename decltype(lanes)::Floats sums{}, squares{};
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto d = load(x.first + row * x.stride + c, lanes) - from;
      sums += d;
      squares += d * d;
    }
    store(sum + c, load(sum + c, lanes) + sums, lanes);
    store(square + c, load(square + c, lanes) + squares, lanes);
  });
}

template <bool Value>
struct Bool {
  static constexpr bool value = Value;
};

// Calls `body` with whether there are such rows, as a type: loops without them do not look.
template <class T, class Body>
INLINE void if_any(Rows<const T> rows, Body body) {
  if (rows.first) {
    body(Bool<true>{});
  } else {
    body(Bool<false>{});
  }
}

template <class T>
void forward_of(
    Rows<const T> x, std::int64_t rows, std::int64_t channels, Affine affine, Rows<const T> added, Rows<T> out) {
  if_any(added, [=](auto adds) __attribute__((always_inline)) {
    for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
      const auto mean = load(affine.mean + c, lanes);
      const auto scale = load(affine.scale + c, lanes);
      const auto bias = load(affine.bias + c, lanes);
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto y = (load(x.first + row * x.stride + c, lanes) - mean) * scale + bias;
        auto value = y * sigmoid(y, lanes);
        if constexpr (adds.value) {
          value += load(added.first + row * added.stride + c, lanes);
        }
        store(out.first + row * out.stride + c, value, lanes);
      }
    });
  });
}

template <class T>
void backward_y_of(
    Rows<const T> x, Rows<const T> grad_out, Rows<const T> other, std::int64_t rows, std::int64_t channels,
    Affine affine, Rows<T> grad_y, float* sum, float* product) {
  if_any(other, [=](auto has_other) __attribute__((always_inline)) {
    for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
      const auto mean = load(affine.mean + c, lanes);
      const auto scale = load(affine.scale + c, lanes);
      const auto bias = load(affine.bias + c, lanes);
      typename decltype(lanes)::Floats sums{}, products{};
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto d = load(x.first + row * x.stride + c, lanes) - mean;
        const auto y = d * scale + bias;
        const auto s = sigmoid(y, lanes);
        auto grad = load(grad_out.first + row * grad_out.stride + c, lanes);
        if constexpr (has_other.value) {
          grad += load(other.first + row * other.stride + c, lanes);
        }
        grad = grad * (s * (1.0F + y * (1.0F - s)));
        store(grad_y.first + row * grad_y.stride + c, grad, lanes);
        sums += grad;
        products += grad * d;
      }
      store(sum + c, load(sum + c, lanes) + sums, lanes);
      store(product + c, load(product + c, lanes) + products, lanes);
    });
  });
}

template <class T>
void backward_x_of(Rows<const T> x, std::int64_t rows, std::int64_t channels, Backward backward, Rows<T> grad) {
  for_channels(channels, [=](std::int64_t c, auto lanes) __attribute__((always_inline)) {
    const auto mean = load(backward.mean + c, lanes);
    const auto scale = load(backward.scale + c, lanes);
    const auto slope = load(backward.slope + c, lanes);
    const auto offset = load(backward.offset + c, lanes);
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto d = load(x.first + row * x.stride + c, lanes) - mean;
      T* const at = grad.first + row * grad.stride + c;
      store(at, load(at, lanes) * scale + (d * slope + offset), lanes);
    }
  });
}

double sum_of_squares(const float* values, std::int64_t count) {
  // Short runs in float, their sums in double. Sixteen columns, however many a register holds.
  constexpr std::int64_t RUN = 4096, COLUMNS = 16;
  double total = 0.0;
  for (std::int64_t begin = 0; begin < count; begin += RUN) {
    const float* const from = values + begin;
    const std::int64_t length = count - begin < RUN ? count - begin : RUN;
    Vectors<LANES>::Floats sums[COLUMNS / LANES] = {};
    std::int64_t i = 0;
    for (; i + COLUMNS <= length; i += COLUMNS) {
      for (std::int64_t part = 0; part < COLUMNS / LANES; ++part) {
        const auto run = load(from + i + part * LANES, All<LANES>{});
        sums[part] += run * run;
      }
    }
    for (std::int64_t part = 0; i + part * LANES < length; ++part) {
      const std::int64_t left = length - i - part * LANES;
      const auto run = load(from + i + part * LANES, Some{{}, left < LANES ? left : LANES});
      sums[part] += run * run;
    }
    for (const auto& part : sums) {
      for (std::int64_t lane = 0; lane < LANES; ++lane) {
        total += part[lane];
      }
    }
  }
  return total;
}

template <class T>
constexpr Kernels<T> KERNELS = {moments_of<T>, forward_of<T>, backward_y_of<T>, backward_x_of<T>};

} // namespace

extern const Machine MACHINE;
const Machine MACHINE = {TEXT(MACHINE), KERNELS<float>, KERNELS<bfloat16>, sum_of_squares};

} // namespace torch_bridge::kernels
