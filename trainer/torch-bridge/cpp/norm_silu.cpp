// Batch normalisation and SiLU in one, for training on CPUs: the values between the two are computed anew in the
// backward pass instead of being written to memory and kept there.
#include "norm_silu_kernels.h"
#include "torch-bridge/cpp/bridge.h"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>

#ifndef INTRA_OP_PARALLEL
#error "at::parallel_for would be a plain loop: compile with -fopenmp"
#endif

namespace torch_bridge {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of one portion that a thread works on. Constant, so that sums do not depend on the number of threads; small
// enough for a core's cache.
constexpr std::int64_t CHUNK_ELEMENTS = 8192;

// Portions of rows of channels.
struct Chunks {
  std::int64_t rows;
  std::int64_t channels;
  std::int64_t per_chunk;

  Chunks(std::int64_t rows, std::int64_t channels)
      : rows(rows), channels(channels), per_chunk(std::max<std::int64_t>(CHUNK_ELEMENTS / channels, 1)) {}

  std::int64_t count() const {
    return (rows + per_chunk - 1) / per_chunk;
  }

  // Calls body(number of the chunk, first row, number of rows) for all chunks, on all threads.
  template <class Body>
  void each(Body body) const {
    at::parallel_for(0, count(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        const std::int64_t first = chunk * per_chunk;
        body(chunk, first, std::min(per_chunk, rows - first));
      }
    });
  }

  // Two sums over all rows for each channel, of which body(first row, rows, sum, other) adds up a chunk's.
  template <class Body>
  std::vector<double> sums(Body body) const {
    std::vector<float> parts(2 * channels * count());
    each([&](std::int64_t chunk, std::int64_t first, std::int64_t n) {
      float* part = parts.data() + 2 * channels * chunk;
      body(first, n, part, part + channels);
    });
    std::vector<double> total(2 * channels);
    for (std::int64_t chunk = 0; chunk < count(); ++chunk) {
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

// Some channels of images, one row for each pixel. None where there is no tensor.
struct Images {
  at::Tensor tensor;
  std::int64_t first = 0;
  std::int64_t stride = 0;

  Images() = default;

  // Of images whose pixels are dense.
  explicit Images(const at::Tensor& dense, std::int64_t first = 0)
      : tensor(dense), first(first), stride(dense.size(1)) {}

  // Of any: of a copy where its pixels are not rows that lie the same distance apart, as those of a part of a
  // concatenation do.
  static Images of(const at::Tensor& tensor, at::ScalarType type) {
    const auto typed = tensor.to(type);
    const auto pixel = typed.stride(3);
    const bool fits = typed.stride(1) == 1 && pixel >= typed.size(1) && typed.stride(2) == pixel * typed.size(3) &&
        typed.stride(0) == typed.stride(2) * typed.size(2);
    Images images(fits ? typed : typed.contiguous(at::MemoryFormat::ChannelsLast));
    images.stride = fits ? pixel : images.stride;
    return images;
  }

  template <class T>
  kernels::Rows<T> from(std::int64_t row) const {
    using Plain = std::remove_const_t<T>;
    if (!tensor.defined()) {
      return {nullptr, 0};
    }
    return {static_cast<Plain*>(tensor.data_ptr()) + first + row * stride, stride};
  }
};

// The same memory under other sizes, and no view of anything: outputs of operations are none.
at::Tensor alias(const at::Tensor& tensor, std::int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  return at::empty({0}, tensor.options()).set_(tensor.storage(), tensor.storage_offset() + offset, sizes, strides);
}

at::Tensor again(const at::Tensor& tensor) {
  return alias(tensor, 0, tensor.sizes(), tensor.strides());
}

// Room for images of `channels` and `more` channels side by side: the last ones of it. What comes before is left to
// `whole`.
at::Tensor last_channels(const at::Tensor& like, std::int64_t channels, std::int64_t more) {
  const auto height = like.size(2), width = like.size(3), pixel = channels + more;
  const auto room = at::empty({like.size(0) * height * width * pixel}, like.options().requires_grad(false));
  return alias(room, channels, {like.size(0), more, height, width}, {height * width * pixel, 1, width * pixel, pixel});
}

// What these are the last channels of, with as many before them.
at::Tensor whole(const at::Tensor& last, const at::Tensor& x) {
  const auto channels = x.size(1), pixel = channels + last.size(1);
  TORCH_CHECK(
      last.storage_offset() >= channels && last.stride(3) == pixel && last.scalar_type() == x.scalar_type() &&
          last.size(0) == x.size(0) && last.size(2) == x.size(2) && last.size(3) == x.size(3),
      "the images beside are not the last channels of something with room for these");
  return alias(last, -channels, {x.size(0), pixel, x.size(2), x.size(3)}, last.strides());
}

// Mean, inverse deviation and scale of each channel: [3, channels].
enum Saved : std::int64_t { MEAN, INVERSE, SCALE };

// The tensors of a normalisation, each [channels], and its numbers.
struct Norm {
  at::Tensor weight, bias, running_mean, running_var;
  double momentum, eps;
};

// out = silu(normalised x) + added. Returns what `undo` needs.
at::Tensor normalise(const Images& x, Norm norm, const Images& added, const Images& out) {
  const auto channels = norm.weight.numel();
  const Chunks chunks(x.tensor.numel() / x.tensor.size(1), channels);
  const auto count = static_cast<double>(chunks.rows);
  auto saved = at::empty({3, channels}, norm.weight.options().requires_grad(false));
  float* const mean = saved.data_ptr<float>();
  float* const scale = mean + SCALE * channels;
  with_type(x.tensor, [&]<class T>(T*) {
    const auto& kernels = kernels::machine().of<T>();
    // Around the first pixel's values, for the sums of squares to keep their digits.
    std::vector<float> shift(channels);
    const auto first_row = x.tensor.select(0, 0).select(1, 0).select(1, 0).narrow(0, x.first, channels).to(at::kFloat);
    std::copy_n(first_row.contiguous().data_ptr<float>(), channels, shift.data());
    const auto sums = chunks.sums([&](std::int64_t first, std::int64_t n, float* sum, float* square) {
      kernels.moments(x.from<const T>(first), n, channels, shift.data(), sum, square);
    });
    float* const old_mean = norm.running_mean.data_ptr<float>();
    float* const old_var = norm.running_var.data_ptr<float>();
    for (std::int64_t c = 0; c < channels; ++c) {
      const double offset = sums[c] / count;
      const double variance = std::max(sums[channels + c] / count - offset * offset, 0.0);
      const double center = shift[c] + offset;
      const double inverse = 1.0 / std::sqrt(variance + norm.eps);
      mean[c] = static_cast<float>(center);
      mean[INVERSE * channels + c] = static_cast<float>(inverse);
      scale[c] = static_cast<float>(norm.weight.data_ptr<float>()[c] * inverse);
      const double unbiased = variance * count / std::max(count - 1.0, 1.0);
      old_mean[c] = static_cast<float>((1.0 - norm.momentum) * old_mean[c] + norm.momentum * center);
      old_var[c] = static_cast<float>((1.0 - norm.momentum) * old_var[c] + norm.momentum * unbiased);
    }
    const kernels::Affine affine{mean, scale, norm.bias.data_ptr<float>()};
    chunks.each([&](std::int64_t, std::int64_t first, std::int64_t n) {
      kernels.forward(x.from<const T>(first), n, channels, affine, added.from<const T>(first), out.from<T>(first));
    });
  });
  return saved;
}

// From the gradient of out, in one summand or two, that of x into `grad`; returns those of weight and bias.
std::array<at::Tensor, 2> undo(
    const Images& x, const at::Tensor& bias, const at::Tensor& saved, const Images& grad_out, const Images& other,
    const Images& grad) {
  const auto channels = bias.numel();
  const Chunks chunks(x.tensor.numel() / x.tensor.size(1), channels);
  const auto count = static_cast<double>(chunks.rows);
  const float* const mean = saved.data_ptr<float>();
  const float* const inverse = mean + INVERSE * channels;
  const float* const scale = mean + SCALE * channels;
  auto grad_weight = at::empty({channels}, saved.options());
  auto grad_bias = at::empty({channels}, saved.options());
  with_type(x.tensor, [&]<class T>(T*) {
    const auto& kernels = kernels::machine().of<T>();
    const kernels::Affine affine{mean, scale, bias.data_ptr<float>()};
    const auto sums = chunks.sums([&](std::int64_t first, std::int64_t n, float* sum, float* product) {
      kernels.backward_y(
          x.from<const T>(first), grad_out.from<const T>(first), other.from<const T>(first), n, channels, affine,
          grad.from<T>(first), sum, product);
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
    chunks.each([&](std::int64_t, std::int64_t first, std::int64_t n) {
      kernels.backward_x(x.from<const T>(first), n, channels, backward, grad.from<T>(first));
    });
  });
  return {grad_weight, grad_bias};
}

struct NormSilu : torch::autograd::Function<NormSilu> {
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
      const at::Tensor& running_mean, const at::Tensor& running_var, double momentum, double eps,
      const std::optional<at::Tensor>& added, const std::optional<at::Tensor>& beside, bool twice) {
    auto out = beside ? whole(*beside, x) : at::empty_like(x);
    Images into(out);
    into.stride = beside ? out.size(1) : x.size(1);
    const auto summand = added ? Images::of(*added, x.scalar_type()) : Images();
    const auto saved = normalise(Images(x), {weight, bias, running_mean, running_var, momentum, eps}, summand, into);
    ctx->save_for_backward({x, bias, saved});
    ctx->saved_data["adds"] = added.has_value();
    ctx->saved_data["beside"] = beside.has_value();
    return twice ? variable_list{out, again(out)} : variable_list{out};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto channels = x.size(1);
    const bool adds = ctx->saved_data["adds"].toBool();
    if (adds && grads.size() > 1) {
      // What was added has the sum as its gradient, too.
      grads[0] = at::add(grads[0], grads[1]);
      grads.pop_back();
    }
    at::Tensor grad_beside;
    if (ctx->saved_data["beside"].toBool()) {
      grad_beside = grads[0].narrow(1, channels, grads[0].size(1) - channels);
      grads[0] = grads[0].narrow(1, 0, channels);
    }
    const auto grad_out = Images::of(grads[0], x.scalar_type());
    const auto other = grads.size() > 1 ? Images::of(grads[1], x.scalar_type()) : Images();
    auto grad = at::empty_like(x);
    const auto [grad_weight, grad_bias] = undo(Images(x), saved[1], saved[2], grad_out, other, Images(grad));
    const auto grad_added = adds ? grads[0] : at::Tensor();
    return {grad, grad_weight, grad_bias, {}, {}, {}, {}, grad_added, grad_beside, {}};
  }
};

struct SplitNormSilu : torch::autograd::Function<SplitNormSilu> {
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
      const at::Tensor& running_mean, const at::Tensor& running_var, const at::Tensor& last_weight,
      const at::Tensor& last_bias, const at::Tensor& last_mean, const at::Tensor& last_var, double momentum, double eps,
      bool twice) {
    const auto channels = weight.numel(), more = last_weight.numel();
    const auto options = x.options().requires_grad(false).memory_format(at::MemoryFormat::ChannelsLast);
    const auto out = at::empty({x.size(0), channels, x.size(2), x.size(3)}, options);
    const auto last = last_channels(x, channels, more);
    Images into_last(last);
    into_last.stride = last.stride(3);
    const auto saved = normalise(Images(x), {weight, bias, running_mean, running_var, momentum, eps}, {}, Images(out));
    const auto last_saved =
        normalise(Images(x, channels), {last_weight, last_bias, last_mean, last_var, momentum, eps}, {}, into_last);
    ctx->save_for_backward({x, bias, saved, last_bias, last_saved});
    return twice ? variable_list{out, again(out), last} : variable_list{out, last};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto channels = saved[1].numel();
    const auto images = [&](const at::Tensor& grad) { return Images::of(grad, x.scalar_type()); };
    const auto other = grads.size() > 2 ? images(grads[1]) : Images();
    auto grad = at::empty_like(x);
    const auto [weight, bias] = undo(Images(x), saved[1], saved[2], images(grads[0]), other, Images(grad));
    const auto [last_weight, last_bias] =
        undo(Images(x, channels), saved[3], saved[4], images(grads.back()), {}, Images(grad, channels));
    return {grad, weight, bias, {}, {}, last_weight, last_bias, {}, {}, {}, {}, {}};
  }
};

} // namespace

std::unique_ptr<Tensors> norm_silu(
    const at::Tensor& x, const Tensors& norm, double momentum, double eps, const Tensors& added, const Tensors& beside,
    bool twice) {
  const auto& n = norm.list;
  const auto any = [](const Tensors& tensors) {
    return tensors.list.empty() ? std::optional<at::Tensor>() : tensors.list[0];
  };
  auto made = std::make_unique<Tensors>();
  made->list = NormSilu::apply(x, n.at(0), n.at(1), n.at(2), n.at(3), momentum, eps, any(added), any(beside), twice);
  return made;
}

std::unique_ptr<Tensors> split_norm_silu(
    const at::Tensor& x, const Tensors& first, const Tensors& last, double momentum, double eps, bool twice) {
  const auto& f = first.list;
  const auto& l = last.list;
  auto made = std::make_unique<Tensors>();
  made->list = SplitNormSilu::apply(
      x, f.at(0), f.at(1), f.at(2), f.at(3), l.at(0), l.at(1), l.at(2), l.at(3), momentum, eps, twice);
  return made;
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
