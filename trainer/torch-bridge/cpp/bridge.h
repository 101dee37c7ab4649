// The C++ half of the bridge that src/ffi.rs declares.
//
// Factories, one-line calls and operations with a gradient of their own: whatever decides something is written in Rust. This header names no
// libtorch header, so that the translation unit cxx generates from it compiles in a second; the types are
// defined in distributed.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rust/cxx.h"

namespace at {
class Tensor;
}

namespace torch_bridge {

// Text of the exception being handled, without libtorch's C++ backtrace.
std::string current_exception_text();

// Owned handles to tensors, for calls that take or return several.
class Tensors {
 public:
  Tensors();
  ~Tensors();
  void push(const at::Tensor& tensor);
  std::size_t size() const;
  // A new heap-allocated handle, owned by the caller, as tch's own C interface hands them out.
  at::Tensor* handle(std::size_t index) const;

  std::vector<at::Tensor> list;
};

std::unique_ptr<Tensors> new_tensors();

// Structs shared with Rust; cxx generates their definitions.
struct TcpSettings;
struct GlooSettings;
struct ReducerSettings;
struct SgdSettings;
struct AdamSettings;
struct SyncNormSettings;

class Store {
 public:
  struct Inner;
  explicit Store(std::unique_ptr<Inner> inner);
  ~Store();
  void set(rust::Str key, rust::Slice<const std::uint8_t> value) const;
  rust::Vec<std::uint8_t> get(rust::Str key) const;
  std::int64_t add(rust::Str key, std::int64_t amount) const;
  bool check(rust::Slice<const rust::String> keys) const;
  void wait(rust::Slice<const rust::String> keys, std::int64_t timeout_ms) const;
  bool remove(rust::Str key) const;

  std::unique_ptr<Inner> inner;
};

std::unique_ptr<Store> open_tcp_store(const TcpSettings& settings, std::uint16_t& bound_port);
std::unique_ptr<Store> open_file_store(rust::Str path, std::int32_t workers);
std::unique_ptr<Store> prefixed_store(const Store& store, rust::Str prefix);
std::unique_ptr<Store> reopen_store(const Store& store);

class Work {
 public:
  struct Inner;
  explicit Work(std::unique_ptr<Inner> inner);
  ~Work();
  bool is_completed() const;
  void wait() const;

  std::unique_ptr<Inner> inner;
};

class Group {
 public:
  struct Inner;
  explicit Group(std::unique_ptr<Inner> inner);
  ~Group();
  std::unique_ptr<Work> all_reduce(const Tensors& tensor, std::uint8_t op) const;
  std::unique_ptr<Work> all_reduce_coalesced(const Tensors& tensors, std::uint8_t op) const;
  std::unique_ptr<Work> broadcast(const at::Tensor& tensor, std::int32_t root) const;
  void broadcast_coalesced(const Tensors& tensors, std::size_t buffer_bytes, std::int32_t root) const;
  // Appends one output per rank to `outputs`; they are filled once the work is done.
  std::unique_ptr<Work> all_gather(const at::Tensor& input, Tensors& outputs) const;
  std::unique_ptr<Work> barrier() const;
  void monitored_barrier(std::int64_t timeout_ms) const;
  void verify_params(const Tensors& params) const;
  void abort() const;
  // Addresses for libtorch_bridge_cuda.so, valid while this group lives: a c10d::ProcessGroup* and a
  // c10::intrusive_ptr<c10d::Store>*.
  std::size_t process_group_address() const;
  std::size_t store_address() const;

  std::unique_ptr<Inner> inner;
};

std::unique_ptr<Group> new_group(const Store& store, std::int32_t rank, std::int32_t size, const GlooSettings& settings);

// Changes the running statistics in place.
at::Tensor* sync_batch_norm(
    const Group& group, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
    const at::Tensor& running_mean, const at::Tensor& running_variance, const SyncNormSettings& settings);

class Reducer {
 public:
  struct Inner;
  explicit Reducer(std::unique_ptr<Inner> inner);
  ~Reducer();
  void prepare_for_forward() const;
  bool rebuild_buckets() const;
  void prepare_for_backward(const Tensors& outputs) const;
  std::size_t bucket_count() const;

  std::unique_ptr<Inner> inner;
};

std::unique_ptr<Reducer> new_reducer(
    const Group& group, const Tensors& params, rust::Slice<const rust::String> names, const ReducerSettings& settings);

// Tensor lists that the name says are changed are changed in place.
void fused_sgd(
    const Tensors& params, const Tensors& grads, const Tensors& momentum_buffers, const SgdSettings& settings,
    const Tensors& grad_scale, const Tensors& found_inf);
void fused_adam(
    const Tensors& params, const Tensors& grads, const Tensors& moments, const at::Tensor& step,
    const AdamSettings& settings, const Tensors& grad_scale, const Tensors& found_inf);
void foreach_lerp(const Tensors& targets, const Tensors& sources, double weight);
void foreach_copy(const Tensors& targets, const Tensors& sources);
void foreach_zero(const Tensors& targets);
void foreach_scale(const Tensors& targets, const at::Tensor& factor);
std::unique_ptr<Tensors> foreach_norm(const Tensors& tensors, double order);
// Of dense float32 tensors on the CPU.
double sum_of_squares(const Tensors& tensors);
void unscale(const Tensors& grads, const at::Tensor& inverse_scale, const at::Tensor& found_inf);

bool is_dense(const at::Tensor& tensor);
bool is_channels_last(const at::Tensor& tensor);
at::Tensor* contiguous_channels_last(const at::Tensor& tensor);

at::Tensor* leaky_relu(const at::Tensor& tensor, double slope);
at::Tensor* elu(const at::Tensor& tensor, double alpha);

// One column of all rows, and the rows at some places; see pick.rs.
std::unique_ptr<Tensors> pick(const at::Tensor& table, std::int64_t column, const Tensors& places);

// A normalisation is weight, bias, running mean and running variance, of which the last two are changed. `added` and
// `beside` have one tensor or none. norm_silu.rs checks what the tensors are like.
std::unique_ptr<Tensors> norm_silu(
    const at::Tensor& x, const Tensors& norm, double momentum, double eps, const Tensors& added, const Tensors& beside,
    bool twice);
std::unique_ptr<Tensors> split_norm_silu(
    const at::Tensor& x, const Tensors& first, const Tensors& last, double momentum, double eps, bool twice);

// See norm_silu_kernels.h.
bool use_machine(rust::Str name);

// Devices and number kinds cross as small numbers, see ffi.rs.
bool autocast_enabled(bool cuda);
std::int32_t autocast_kind(bool cuda);
void set_autocast(bool cuda, bool enabled, std::int32_t kind);
void autocast_enter();
void autocast_leave();

void set_num_threads(std::int32_t threads);
std::int32_t num_threads();
void set_num_interop_threads(std::int32_t threads);
rust::String cpu_capability();
rust::String torch_version();
void set_deterministic(bool enabled);
bool set_flush_denormal(bool enabled);
void set_allow_tf32(bool enabled);

} // namespace torch_bridge

// How cxx turns an exception into a Rust error: ours keeps libtorch's message and drops its backtrace.
namespace rust::behavior {

template <typename Try, typename Fail>
static void trycatch(Try&& attempt, Fail&& fail) noexcept try {
  attempt();
} catch (...) {
  fail(torch_bridge::current_exception_text());
}

} // namespace rust::behavior
