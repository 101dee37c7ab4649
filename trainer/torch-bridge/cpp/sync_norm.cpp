// Batch normalisation by the images of all ranks, as a function with a gradient.
#include "torch-bridge/cpp/bridge.h"
#include "torch-bridge/src/ffi.rs.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <array>
#include <utility>

namespace torch_bridge {

namespace {

using GroupHandle = c10::intrusive_ptr<c10d::ProcessGroup>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

GroupHandle handle_of(const Group& group) {
  return GroupHandle::unsafe_reclaim_from_nonowning(
      reinterpret_cast<c10d::ProcessGroup*>(group.process_group_address()));
}

// Mean, variance (biased) and number of values per channel, of all ranks together.
struct Statistics {
  at::Tensor mean;
  at::Tensor squares;  // sum of squared deviations from the mean
  at::Tensor count;    // one number
};

// `[2C + 1]`: means, sums of squared deviations, count. All zero of a rank that does not count.
at::Tensor own_statistics(const at::Tensor& x, bool counts) {
  const auto channels = x.size(1);
  const auto real = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  if (!counts) {
    return at::zeros({2 * channels + 1}, real.options());
  }
  const auto count = static_cast<double>(x.numel() / channels);
  auto [mean, variance] = at::batch_norm_update_stats(real, {}, {}, 0.0);
  return at::cat({mean, variance * count, at::full({1}, count, mean.options())});
}

// Chan's way of joining means and deviations, in the order of ranks: the same on each to the last bit.
Statistics joined(const std::vector<at::Tensor>& all, std::int64_t channels) {
  Statistics sum{
      all[0].narrow(0, 0, channels).clone(), all[0].narrow(0, channels, channels).clone(),
      all[0].narrow(0, 2 * channels, 1).clone()};
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    const auto count = all[rank].narrow(0, 2 * channels, 1);
    const auto total = sum.count + count;
    const auto share = count / total.clamp_min(1);
    const auto delta = all[rank].narrow(0, 0, channels) - sum.mean;
    sum.squares += all[rank].narrow(0, channels, channels) + delta * delta * (sum.count * share);
    sum.mean += delta * share;
    sum.count = total;
  }
  return sum;
}

at::Tensor per_channel(const at::Tensor& values, const at::Tensor& like) {
  std::vector<std::int64_t> shape(like.dim(), 1);
  shape[1] = values.numel();
  return values.view(shape);
}

struct SyncBatchNorm : torch::autograd::Function<SyncBatchNorm> {
  static at::Tensor forward(
      AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
      at::Tensor running_mean, at::Tensor running_variance, const GroupHandle& group, bool counts, double momentum,
      double eps) {
    std::vector<at::Tensor> inputs{own_statistics(x, counts)};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int rank = 0; rank < group->getSize(); ++rank) {
      outputs[0].push_back(at::empty_like(inputs[0]));
    }
    group->allgather(outputs, inputs)->wait();
    auto all = joined(outputs[0], x.size(1));

    // Where no rank counts, the running statistics serve and stay. Decided without a wait for a GPU.
    const auto any = all.count > 0;
    const auto mean = at::where(any, all.mean, running_mean);
    const auto variance = at::where(any, all.squares / all.count.clamp_min(1), running_variance);
    const auto unbiased = all.squares / (all.count - 1).clamp_min(1);
    const auto share = any.to(all.mean.scalar_type()) * momentum;
    running_mean.add_((mean - running_mean) * share);
    running_variance.add_((unbiased - running_variance) * share);

    context->save_for_backward({x, weight, mean, variance, all.count});
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    context->saved_data["counts"] = counts;
    context->saved_data["eps"] = eps;
    return std::get<0>(at::native_batch_norm(x, weight, bias, mean, variance, /*training=*/false, momentum, eps));
  }

  // With fixed statistics dx = dy w/s and the sums over the batch are db = Σ dy, dw = Σ dy (x - mean)/s, where
  // s² = variance + eps. That the statistics follow x takes w/(s n) (db + dw (x - mean)/s) away, with the sums
  // and n of all ranks.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3], &count = saved[4];
    const auto eps = context->saved_data["eps"].toDouble();
    const auto counts = context->saved_data["counts"].toBool();
    const auto group =
        c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(context->saved_data["group"].toCapsule());

    auto [dx, dw, db] = at::native_batch_norm_backward(
        gradients[0], x, weight, mean, variance, {}, {}, /*train=*/false, eps, {true, true, true});
    std::vector<at::Tensor> sums{at::cat({db, dw})};
    group->allreduce(sums)->wait();
    if (counts) {
      const auto channels = x.size(1);
      const auto all_db = sums[0].narrow(0, 0, channels);
      const auto all_dw = sums[0].narrow(0, channels, channels);
      const auto inverse = (variance + eps).rsqrt();
      const auto factor = weight * inverse / count.clamp_min(1);
      const auto slope = factor * all_dw * inverse;
      const auto offset = factor * all_db - slope * mean;
      dx.sub_(at::addcmul(per_channel(offset, x), x, per_channel(slope, x)));
    }
    return {dx, dw, db, {}, {}, {}, {}, {}, {}};
  }
};

} // namespace

at::Tensor* sync_batch_norm(
    const Group& group, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
    const at::Tensor& running_mean, const at::Tensor& running_variance, const SyncNormSettings& settings) {
  return new at::Tensor(SyncBatchNorm::apply(
      x, weight, bias, running_mean, running_variance, handle_of(group), settings.counts, settings.momentum,
      settings.eps));
}

} // namespace torch_bridge
