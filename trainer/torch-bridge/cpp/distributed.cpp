// Stores, process groups and the reducer: c10d's CPU side.
#include "torch-bridge/cpp/bridge.h"
#include "torch-bridge/src/ffi.rs.h"

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <dlfcn.h>
#include <netdb.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace {

// libtorch's flight recorder keeps a history of collectives. Two groups on two threads race for its map of
// groups, which it changes outside its lock (FlightRecorder::recordWithResetEnabled in 2.11), and crash. A size of
// 0 switches it off. Set here, before main and so before any thread, because changing the environment later races
// with its readers; a size that is set already stays, for processes that keep to one thread.
__attribute__((constructor)) void switch_off_flight_recorder() {
  setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);
}

} // namespace

// For its log c10d asks DNS for the name of each address that connects to a store, on both sides and before it goes
// on. A server that does not answer costs the resolver's time-out, 5 seconds and more, for each of them, and pods
// have no such names. A program's own function goes before the C library's also for the libraries that it loads, and
// this one writes the address instead: it never asks. The contract of getnameinfo(3) is kept, where NI_NAMEREQD fails.
extern "C" int getnameinfo(const sockaddr* address, socklen_t size, char* host, socklen_t host_size, char* service,
                           socklen_t service_size, int flags) {
  using Function = decltype(&getnameinfo);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getnameinfo"));
  return next(address, size, host, host_size, service, service_size, flags | NI_NUMERICHOST | NI_NUMERICSERV);
}

namespace torch_bridge {

using std::chrono::milliseconds;

std::string current_exception_text() {
  try {
    throw;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

namespace {

std::string to_string(rust::Str text) {
  return std::string(text.data(), text.size());
}

std::vector<std::string> to_strings(rust::Slice<const rust::String> texts) {
  std::vector<std::string> strings;
  strings.reserve(texts.size());
  for (const auto& text : texts) {
    strings.emplace_back(text.data(), text.size());
  }
  return strings;
}

// Collectives write into storage; a leaf that requires a gradient refuses in-place changes, its detached
// alias does not.
std::vector<at::Tensor> detached(const Tensors& tensors) {
  std::vector<at::Tensor> result;
  result.reserve(tensors.list.size());
  for (const auto& tensor : tensors.list) {
    result.push_back(tensor.detach());
  }
  return result;
}

} // namespace

Tensors::Tensors() = default;
Tensors::~Tensors() = default;

void Tensors::push(const at::Tensor& tensor) {
  list.push_back(tensor);
}

std::size_t Tensors::size() const {
  return list.size();
}

at::Tensor* Tensors::handle(std::size_t index) const {
  return new at::Tensor(list.at(index));
}

std::unique_ptr<Tensors> new_tensors() {
  return std::make_unique<Tensors>();
}

struct Store::Inner {
  c10::intrusive_ptr<c10d::Store> store;
};

Store::Store(std::unique_ptr<Inner> inner) : inner(std::move(inner)) {}
Store::~Store() = default;

namespace {

std::unique_ptr<Store> wrap(c10::intrusive_ptr<c10d::Store> store) {
  return std::make_unique<Store>(std::make_unique<Store::Inner>(Store::Inner{std::move(store)}));
}

} // namespace

std::unique_ptr<Store> open_tcp_store(const TcpSettings& settings, std::uint16_t& bound_port) {
  c10d::TCPStoreOptions options;
  options.port = settings.port;
  options.isServer = settings.is_server;
  if (settings.world_size > 0) {
    options.numWorkers = settings.world_size;
  }
  options.waitWorkers = settings.wait_workers;
  options.timeout = milliseconds(settings.timeout_ms);
  auto store = c10::make_intrusive<c10d::TCPStore>(std::string(settings.host), options);
  bound_port = store->getPort();
  return wrap(std::move(store));
}

std::unique_ptr<Store> open_file_store(rust::Str path, std::int32_t workers) {
  return wrap(c10::make_intrusive<c10d::FileStore>(to_string(path), workers));
}

std::unique_ptr<Store> prefixed_store(const Store& store, rust::Str prefix) {
  return wrap(c10::make_intrusive<c10d::PrefixStore>(to_string(prefix), store.inner->store));
}

std::unique_ptr<Store> reopen_store(const Store& store) {
  return wrap(store.inner->store->clone());
}

void Store::set(rust::Str key, rust::Slice<const std::uint8_t> value) const {
  inner->store->set(to_string(key), std::vector<std::uint8_t>(value.begin(), value.end()));
}

rust::Vec<std::uint8_t> Store::get(rust::Str key) const {
  rust::Vec<std::uint8_t> value;
  for (auto byte : inner->store->get(to_string(key))) {
    value.push_back(byte);
  }
  return value;
}

std::int64_t Store::add(rust::Str key, std::int64_t amount) const {
  return inner->store->add(to_string(key), amount);
}

bool Store::check(rust::Slice<const rust::String> keys) const {
  return inner->store->check(to_strings(keys));
}

void Store::wait(rust::Slice<const rust::String> keys, std::int64_t timeout_ms) const {
  inner->store->wait(to_strings(keys), milliseconds(timeout_ms));
}

bool Store::remove(rust::Str key) const {
  return inner->store->deleteKey(to_string(key));
}

struct Work::Inner {
  c10::intrusive_ptr<c10d::Work> work;
};

Work::Work(std::unique_ptr<Inner> inner) : inner(std::move(inner)) {}
Work::~Work() = default;

bool Work::is_completed() const {
  return inner->work->isCompleted();
}

void Work::wait() const {
  TORCH_CHECK(inner->work->wait(), "the operation was aborted");
}

namespace {

std::unique_ptr<Work> wrap(c10::intrusive_ptr<c10d::Work> work) {
  return std::make_unique<Work>(std::make_unique<Work::Inner>(Work::Inner{std::move(work)}));
}

} // namespace

struct Group::Inner {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

Group::Group(std::unique_ptr<Inner> inner) : inner(std::move(inner)) {}
Group::~Group() = default;

std::unique_ptr<Group> new_group(const Store& store, std::int32_t rank, std::int32_t size, const GlooSettings& settings) {
  auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(settings.timeout_ms));
  options->threads = settings.threads;
  if (!settings.interface_name.empty()) {
    options->devices.push_back(
        c10d::ProcessGroupGloo::createDeviceForInterface(std::string(settings.interface_name)));
  } else if (!settings.hostname.empty()) {
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(std::string(settings.hostname)));
  } else {
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
  }
  const auto& c10d_store = store.inner->store;
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::PrefixStore>("gloo", c10d_store), rank, size, std::move(options));
  gloo->setSequenceNumberForGroup();
  auto group = c10::make_intrusive<c10d::ProcessGroup>(c10d_store, rank, size);
  group->setBackend(
      c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, c10::intrusive_ptr<c10d::Backend>(std::move(gloo)));
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  return std::make_unique<Group>(std::make_unique<Group::Inner>(Group::Inner{c10d_store, std::move(group)}));
}

std::unique_ptr<Work> Group::all_reduce(const Tensors& tensor, std::uint8_t op) const {
  auto tensors = detached(tensor);
  c10d::AllreduceOptions options;
  options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(op);
  return wrap(inner->group->allreduce(tensors, options));
}

std::unique_ptr<Work> Group::all_reduce_coalesced(const Tensors& tensors, std::uint8_t op) const {
  auto list = detached(tensors);
  c10d::AllreduceCoalescedOptions options;
  options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(op);
  return wrap(inner->group->allreduce_coalesced(list, options));
}

std::unique_ptr<Work> Group::broadcast(const at::Tensor& tensor, std::int32_t root) const {
  std::vector<at::Tensor> tensors{tensor.detach()};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  return wrap(inner->group->broadcast(tensors, options));
}

void Group::broadcast_coalesced(const Tensors& tensors, std::size_t buffer_bytes, std::int32_t root) const {
  c10d::broadcast_coalesced(inner->group, detached(tensors), buffer_bytes, root);
}

std::unique_ptr<Work> Group::all_gather(const at::Tensor& input, Tensors& outputs) const {
  std::vector<at::Tensor> inputs{input.detach().contiguous()};
  for (int rank = 0; rank < inner->group->getSize(); ++rank) {
    outputs.list.push_back(at::empty_like(inputs[0]));
  }
  std::vector<std::vector<at::Tensor>> lists{outputs.list};
  return wrap(inner->group->allgather(lists, inputs));
}

// ProcessGroup::barrier keeps its dummy tensor in an unguarded static variable, which two groups on two
// threads would race for. The backend's own barrier has no such thing.
std::unique_ptr<Work> Group::barrier() const {
  return wrap(inner->group->getDefaultBackend()->barrier());
}

void Group::monitored_barrier(std::int64_t timeout_ms) const {
  c10d::BarrierOptions options;
  options.timeout = milliseconds(timeout_ms);
  inner->group->getBackend(c10d::ProcessGroup::BackendType::GLOO)->monitoredBarrier(options, true);
}

void Group::verify_params(const Tensors& params) const {
  c10d::verify_params_across_processes(inner->group, params.list, std::nullopt);
}

void Group::abort() const {
  inner->group->abort();
}

std::size_t Group::process_group_address() const {
  return reinterpret_cast<std::size_t>(inner->group.get());
}

std::size_t Group::store_address() const {
  return reinterpret_cast<std::size_t>(&inner->store);
}

struct Reducer::Inner {
  // Members are destroyed last to first: the reducer before the group whose backend its pending work uses.
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::unique_ptr<c10d::Reducer> reducer;
};

Reducer::Reducer(std::unique_ptr<Inner> inner) : inner(std::move(inner)) {}

Reducer::~Reducer() {
  try {
    // Not reset(): an exception that leaves a unique_ptr's deleter ends the process.
    delete inner->reducer.release();
  } catch (...) {
    // c10d::Reducer's destructor may throw; there is nobody left to tell.
  }
}

std::unique_ptr<Reducer> new_reducer(
    const Group& group, const Tensors& params, rust::Slice<const rust::String> names, const ReducerSettings& settings) {
  const std::vector<bool> dense(params.list.size(), false);
  const std::vector<std::size_t> limits(settings.initial_limits.begin(), settings.initial_limits.end());
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(params.list, limits, dense));
  std::reverse(buckets.begin(), buckets.end());
  std::unordered_map<std::size_t, std::string> names_by_index;
  for (std::size_t index = 0; index < names.size(); ++index) {
    names_by_index.emplace(index, std::string(names[index]));
  }
  auto reducer = std::make_unique<c10d::Reducer>(
      params.list,
      std::move(buckets),
      group.inner->group,
      dense,
      settings.bucket_cap_bytes,
      settings.find_unused_parameters,
      settings.gradient_as_bucket_view,
      std::move(names_by_index),
      settings.first_bucket_bytes,
      /*skip_all_reduce_unused_params=*/false,
      /*use_python_reducer=*/false,
      /*bucket_bytes_cap_list=*/std::vector<std::int64_t>{});
  if (settings.compress_fp16) {
    reducer->register_builtin_comm_hook(c10d::BuiltinCommHookType::FP16_COMPRESS);
  }
  return std::make_unique<Reducer>(
      std::make_unique<Reducer::Inner>(Reducer::Inner{group.inner->group, std::move(reducer)}));
}

void Reducer::prepare_for_forward() const {
  inner->reducer->prepare_for_forward();
}

bool Reducer::rebuild_buckets() const {
  return inner->reducer->rebuild_buckets();
}

void Reducer::prepare_for_backward(const Tensors& outputs) const {
  inner->reducer->prepare_for_backward(outputs.list);
}

std::size_t Reducer::bucket_count() const {
  return inner->reducer->get_grad_buckets(true).size();
}

} // namespace torch_bridge
