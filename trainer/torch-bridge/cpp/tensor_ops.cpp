// Operations on tensors and lists of them, autocast and libtorch's global settings.
#include "torch-bridge/cpp/bridge.h"
#include "torch-bridge/src/ffi.rs.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/leaky_relu.h>
#include <torch/headeronly/version.h>

namespace torch_bridge {

namespace {

std::optional<at::Tensor> optional_tensor(const Tensors& tensors) {
  return tensors.list.empty() ? std::nullopt : std::optional(tensors.list.front());
}

c10::DeviceType device(bool cuda) {
  return cuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
}

} // namespace

void fused_sgd(
    const Tensors& params, const Tensors& grads, const Tensors& momentum_buffers, const SgdSettings& settings,
    const Tensors& grad_scale, const Tensors& found_inf) {
  at::NoGradGuard no_grad;
  at::_fused_sgd_(
      params.list,
      grads.list,
      momentum_buffers.list,
      settings.weight_decay,
      settings.momentum,
      settings.lr,
      /*dampening=*/0.0,
      settings.nesterov,
      /*maximize=*/false,
      settings.first_step,
      optional_tensor(grad_scale),
      optional_tensor(found_inf));
}

void fused_adam(
    const Tensors& params, const Tensors& grads, const Tensors& moments, const at::Tensor& step,
    const AdamSettings& settings, const Tensors& grad_scale, const Tensors& found_inf) {
  at::NoGradGuard no_grad;
  // All parameters have made the same number of steps, so one counter stands for all.
  const std::vector<at::Tensor> steps(params.list.size(), step);
  // First the means of all gradients, then those of their squares.
  const at::TensorList all(moments.list);
  const auto update = [&](auto function) {
    function(
        params.list,
        grads.list,
        all.slice(0, params.list.size()),
        all.slice(params.list.size()),
        at::TensorList{},
        steps,
        settings.lr,
        settings.beta1,
        settings.beta2,
        settings.weight_decay,
        settings.eps,
        /*amsgrad=*/false,
        /*maximize=*/false,
        optional_tensor(grad_scale),
        optional_tensor(found_inf));
  };
  if (settings.decoupled) {
    update([](auto&&... arguments) { at::_fused_adamw_(arguments...); });
  } else {
    update([](auto&&... arguments) { at::_fused_adam_(arguments...); });
  }
}

void foreach_lerp(const Tensors& targets, const Tensors& sources, double weight) {
  at::NoGradGuard no_grad;
  at::_foreach_lerp_(targets.list, sources.list, at::Scalar(weight));
}

void foreach_copy(const Tensors& targets, const Tensors& sources) {
  at::NoGradGuard no_grad;
  at::_foreach_copy_(targets.list, sources.list);
}

void foreach_zero(const Tensors& targets) {
  at::NoGradGuard no_grad;
  at::_foreach_zero_(targets.list);
}

void foreach_scale(const Tensors& targets, const at::Tensor& factor) {
  at::NoGradGuard no_grad;
  at::_foreach_mul_(targets.list, factor);
}

std::unique_ptr<Tensors> foreach_norm(const Tensors& tensors, double order) {
  at::NoGradGuard no_grad;
  auto norms = new_tensors();
  norms->list = at::_foreach_norm(tensors.list, at::Scalar(order));
  return norms;
}

void unscale(const Tensors& grads, const at::Tensor& inverse_scale, const at::Tensor& found_inf) {
  at::NoGradGuard no_grad;
  auto found = found_inf;
  at::_amp_foreach_non_finite_check_and_unscale_(grads.list, found, inverse_scale);
}

bool is_dense(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.is_non_overlapping_and_dense();
}

bool is_channels_last(const at::Tensor& tensor) {
  return tensor.dim() == 4 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor* contiguous_channels_last(const at::Tensor& tensor) {
  return new at::Tensor(tensor.contiguous(at::MemoryFormat::ChannelsLast));
}

at::Tensor* leaky_relu(const at::Tensor& tensor, double slope) {
  return new at::Tensor(at::leaky_relu(tensor, at::Scalar(slope)));
}

at::Tensor* elu(const at::Tensor& tensor, double alpha) {
  return new at::Tensor(at::elu(tensor, at::Scalar(alpha)));
}

bool autocast_enabled(bool cuda) {
  return at::autocast::is_autocast_enabled(device(cuda));
}

std::int32_t autocast_kind(bool cuda) {
  return static_cast<std::int32_t>(at::autocast::get_autocast_dtype(device(cuda)));
}

void set_autocast(bool cuda, bool enabled, std::int32_t kind) {
  at::autocast::set_autocast_enabled(device(cuda), enabled);
  at::autocast::set_autocast_dtype(device(cuda), static_cast<at::ScalarType>(kind));
}

void autocast_enter() {
  at::autocast::increment_nesting();
}

void autocast_leave() {
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
}

void set_num_threads(std::int32_t threads) {
  at::set_num_threads(threads);
}

std::int32_t num_threads() {
  return at::get_num_threads();
}

void set_num_interop_threads(std::int32_t threads) {
  at::set_num_interop_threads(threads);
}

rust::String cpu_capability() {
  return at::get_cpu_capability();
}

rust::String torch_version() {
  return TORCH_VERSION;
}

void set_deterministic(bool enabled) {
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(enabled, /*warn_only=*/false);
  context.setDeterministicCuDNN(enabled);
  context.setDeterministicFillUninitializedMemory(false);
}

bool set_flush_denormal(bool enabled) {
  return at::globalContext().setFlushDenormal(enabled);
}

void set_allow_tf32(bool enabled) {
  auto& context = at::globalContext();
  context.setAllowTF32CuDNN(enabled);
  context.setAllowTF32CuBLAS(enabled);
}

} // namespace torch_bridge
