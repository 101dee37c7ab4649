// Batch normalisation and SiLU in one, for training on CPUs: the values between the two are computed anew in the
// backward pass instead of being written to memory and kept there.
#include "norm_silu_kernels.h"
#include "torch-bridge/cpp/bridge.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

namespace torch_bridge {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of one portion that a thread works on. Constant, so that sums do not depend on the number of threads; small
// enough for a core's cache.
constexpr std::int64_t CHUNK_ELEMENTS = 8192;

// Images as rows of channels, one row for each pixel.
struct Rows {
  std::int64_t count;
  std::int64_t channels;
  std::int64_t per_chunk;

  explicit Rows(const at::Tensor& x)
      : count(x.numel() / x.size(1)),
        channels(x.size(1)),
        per_chunk(std::max<std::int64_t>(CHUNK_ELEMENTS / x.size(1), 1)) {}

  std::int64_t chunks() const {
    return (count + per_chunk - 1) / per_chunk;
  }

  // Calls body(number of the chunk, first row, number of rows) for all chunks, on all threads.
  template <class Body>
  void in_chunks(Body body) const {
    at::parallel_for(0, chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        const std::int64_t first = chunk * per_chunk;
        body(chunk, first, std::min(per_chunk, count - first));
      }
    });
  }

  // Two sums over all rows for each channel, of which body(first row, rows, sum, other) adds up a chunk's.
  template <class Body>
  std::vector<double> sums(Body body) const {
    std::vector<float> parts(2 * channels * chunks());
    in_chunks([&](std::int64_t chunk, std::int64_t first, std::int64_t rows) {
      float* part = parts.data() + 2 * channels * chunk;
      body(first, rows, part, part + channels);
    });
    std::vector<double> total(2 * channels);
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) {
      for (std::int64_t i = 0; i < 2 * channels; ++i) {
        total[i] += parts[2 * channels * chunk + i];
      }
    }
    return total;
  }
};

// Calls body with a null pointer of the type that x's elements have in the kernels.
template <class Body>
void with_type(const at::Tensor& x, Body body) {
  if (x.scalar_type() == at::kBFloat16) {
    body(static_cast<kernels::bfloat16*>(nullptr));
  } else {
    body(static_cast<float*>(nullptr));
  }
}

template <class T>
T* data(const at::Tensor& tensor, std::int64_t offset) {
  return static_cast<T*>(tensor.data_ptr()) + offset;
}

// The tensor itself where its pixels are rows of channels that lie the same distance apart, as those of a part of a
// concatenation do; else a copy.
at::Tensor as_rows(const at::Tensor& tensor) {
  const auto pixel = tensor.stride(3);
  const bool fits = tensor.stride(1) == 1 && pixel >= tensor.size(1) && tensor.stride(2) == pixel * tensor.size(3) &&
      tensor.stride(0) == tensor.stride(2) * tensor.size(2);
  return fits ? tensor : tensor.contiguous(at::MemoryFormat::ChannelsLast).as_strided(
      tensor.sizes(), {tensor[0].numel(), 1, tensor.size(3) * tensor.size(1), tensor.size(1)});
}

// Mean, inverse deviation and scale of each channel: [3, channels].
enum Saved : std::int64_t { MEAN, INVERSE, SCALE };

struct NormSilu : torch::autograd::Function<NormSilu> {
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
      at::Tensor running_mean, at::Tensor running_var, double momentum, double eps) {
    const Rows rows(x);
    const auto channels = rows.channels;
    const auto count = static_cast<double>(rows.count);
    auto saved = at::empty({3, channels}, weight.options().requires_grad(false));
    float* const mean = saved.data_ptr<float>();
    float* const scale = mean + SCALE * channels;
    auto out = at::empty_like(x);

    with_type(x, [&]<class T>(T*) {
      const auto& kernels = kernels::machine().of<T>();
      // Around the first pixel's values, for the sums of squares to keep their digits.
      std::vector<float> shift(channels);
      const auto first_row = x.select(0, 0).select(1, 0).select(1, 0).to(at::kFloat);
      std::copy_n(first_row.data_ptr<float>(), channels, shift.data());
      const auto sums = rows.sums([&](std::int64_t first, std::int64_t n, float* sum, float* square) {
        kernels.moments(data<T>(x, first * channels), n, channels, shift.data(), sum, square);
      });
      float* const old_mean = running_mean.data_ptr<float>();
      float* const old_var = running_var.data_ptr<float>();
      for (std::int64_t c = 0; c < channels; ++c) {
        const double offset = sums[c] / count;
        const double variance = std::max(sums[channels + c] / count - offset * offset, 0.0);
        const double center = shift[c] + offset;
        const double inverse = 1.0 / std::sqrt(variance + eps);
        mean[c] = static_cast<float>(center);
        mean[INVERSE * channels + c] = static_cast<float>(inverse);
        scale[c] = static_cast<float>(weight.data_ptr<float>()[c] * inverse);
        const double unbiased = variance * count / std::max(count - 1.0, 1.0);
        old_mean[c] = static_cast<float>((1.0 - momentum) * old_mean[c] + momentum * center);
        old_var[c] = static_cast<float>((1.0 - momentum) * old_var[c] + momentum * unbiased);
      }
      const kernels::Affine affine{mean, scale, bias.data_ptr<float>()};
      rows.in_chunks([&](std::int64_t, std::int64_t first, std::int64_t n) {
        const auto offset = first * channels;
        kernels.forward(data<T>(x, offset), n, channels, affine, data<T>(out, offset));
      });
    });
    ctx->save_for_backward({x, bias, saved});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto grad_out = as_rows(grads[0].to(x.scalar_type()));
    const Rows rows(x);
    const auto stride = grad_out.stride(3);
    const auto channels = rows.channels;
    const auto count = static_cast<double>(rows.count);
    const float* const mean = saved[2].data_ptr<float>();
    const float* const inverse = mean + INVERSE * channels;
    const float* const scale = mean + SCALE * channels;
    auto grad = at::empty_like(x);
    auto grad_weight = at::empty({channels}, saved[2].options());
    auto grad_bias = at::empty({channels}, saved[2].options());

    with_type(x, [&]<class T>(T*) {
      const auto& kernels = kernels::machine().of<T>();
      const kernels::Affine affine{mean, scale, saved[1].data_ptr<float>()};
      const auto sums = rows.sums([&](std::int64_t first, std::int64_t n, float* sum, float* product) {
        const auto offset = first * channels;
        kernels.backward_y(
            data<T>(x, offset), data<T>(grad_out, first * stride), stride, n, channels, affine, data<T>(grad, offset), sum,
            product);
      });
      // With h = (x - mean) * inverse: grad_x = scale * (grad_y - mean(grad_y) - h * mean(grad_y * h)).
      std::vector<float> slope(channels), offset(channels);
      for (std::int64_t c = 0; c < channels; ++c) {
        const double product = sums[channels + c] * inverse[c];
        grad_bias.data_ptr<float>()[c] = static_cast<float>(sums[c]);
        grad_weight.data_ptr<float>()[c] = static_cast<float>(product);
        slope[c] = static_cast<float>(-scale[c] * inverse[c] * product / count);
        offset[c] = static_cast<float>(-scale[c] * sums[c] / count);
      }
      const kernels::Backward backward{mean, scale, slope.data(), offset.data()};
      rows.in_chunks([&](std::int64_t, std::int64_t first, std::int64_t n) {
        const auto at = first * channels;
        kernels.backward_x(data<T>(x, at), n, channels, backward, data<T>(grad, at));
      });
    });
    return {grad, grad_weight, grad_bias, {}, {}, {}, {}};
  }
};

} // namespace

at::Tensor* norm_silu(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& running_mean,
    const at::Tensor& running_var, double momentum, double eps) {
  return new at::Tensor(NormSilu::apply(x, weight, bias, running_mean, running_var, momentum, eps));
}

double sum_of_squares(const Tensors& tensors) {
  double total = 0.0;
  for (const auto& tensor : tensors.list) {
    total += kernels::machine().sum_of_squares(tensor.data_ptr<float>(), tensor.numel());
  }
  return total;
}

bool use_machine(rust::Str name) {
  return kernels::use_machine(std::string(name).c_str());
}

} // namespace torch_bridge
