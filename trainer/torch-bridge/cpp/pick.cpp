// Parts of a large table, whose gradient is written once.
#include "torch-bridge/cpp/bridge.h"

#include <ATen/TensorIndexing.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>

namespace torch_bridge {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

c10::List<std::optional<at::Tensor>> as_indices(at::TensorList places) {
  c10::List<std::optional<at::Tensor>> indices;
  for (const auto& place : places) {
    indices.push_back(place);
  }
  return indices;
}

struct Pick : torch::autograd::Function<Pick> {
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& table, std::int64_t column, const variable_list& places) {
    ctx->saved_data["column"] = column;
    // Of the table itself only what its gradient is to look like is needed again.
    ctx->saved_data["sizes"] = table.sizes().vec();
    ctx->saved_data["strides"] =
        table.is_non_overlapping_and_dense() ? table.strides().vec() : table.detach().contiguous().strides().vec();
    ctx->saved_data["kind"] = table.scalar_type();
    ctx->saved_data["device"] = table.device();
    ctx->save_for_backward(places);
    const auto kind = table.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto all = table.select(-1, column).to(kind, /*non_blocking=*/false, /*copy=*/true);
    return {all, table.index(as_indices(places)).to(kind)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto& saved = ctx->saved_data;
    const auto kind = saved["kind"].toScalarType();
    // Lies in memory as the table does, so that nothing on the way back has to copy it.
    auto grad = at::empty_strided(
        saved["sizes"].toIntVector(), saved["strides"].toIntVector(), at::dtype(kind).device(saved["device"].toDevice()));
    grad.zero_();
    if (grads[1].defined()) {
      grad.index_put_(as_indices(ctx->get_saved_variables()), grads[1].to(kind));
    }
    if (grads[0].defined()) {
      grad.select(-1, saved["column"].toInt()).add_(grads[0].to(kind));
    }
    return {grad, {}, {}};
  }
};

} // namespace

std::unique_ptr<Tensors> pick(const at::Tensor& table, std::int64_t column, const Tensors& places) {
  auto picked = new_tensors();
  picked->list = Pick::apply(table, column, places.list);
  return picked;
}

} // namespace torch_bridge
