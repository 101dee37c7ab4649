// What needs CUDA, behind a C interface: see cuda_bridge.h. Host code only, so no nvcc.
#include "cuda_bridge.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>

namespace {

void copy_text(const char* text, char* target, std::size_t size) {
  if (size > 0) {
    const auto length = std::min(std::strlen(text), size - 1);
    std::memcpy(target, text, length);
    target[length] = '\0';
  }
}

template <typename Function>
int guarded(char* error, std::size_t error_size, Function&& function) noexcept {
  try {
    function();
    return 0;
  } catch (const c10::Error& exception) {
    copy_text(exception.what_without_backtrace(), error, error_size);
  } catch (const std::exception& exception) {
    copy_text(exception.what(), error, error_size);
  } catch (...) {
    copy_text("an exception that is no std::exception", error, error_size);
  }
  return 1;
}

c10::DeviceIndex checked(int device) {
  const auto count = c10::cuda::device_count();
  TORCH_CHECK(device >= 0 && device < count, "there is no GPU ", device, ", only ", static_cast<int>(count));
  return static_cast<c10::DeviceIndex>(device);
}

} // namespace

extern "C" {

int torch_bridge_cuda_interface_version(void) {
  return TORCH_BRIDGE_CUDA_INTERFACE_VERSION;
}

int torch_bridge_cuda_device_count(int* count, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { *count = c10::cuda::device_count(); });
}

int torch_bridge_cuda_device_name(int device, char* name, size_t name_size, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    cudaDeviceProp properties{};
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, checked(device)));
    copy_text(properties.name, name, name_size);
  });
}

int torch_bridge_cuda_memory(int device, uint64_t* free_bytes, uint64_t* total_bytes, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const c10::cuda::CUDAGuard guard(checked(device));
    std::size_t free = 0;
    std::size_t total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    *free_bytes = free;
    *total_bytes = total;
  });
}

int torch_bridge_cuda_allocator_memory(
    int device, torch_bridge_cuda_allocator_memory_t* memory, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    // The allocator is made with the first CUDA tensor; before, it holds nothing.
    *memory = {};
    const auto index = checked(device);
    if (!c10::cuda::CUDACachingAllocator::get()->initialized()) {
      return;
    }
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index);
    const auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    memory->allocated = stats.allocated_bytes[all].current;
    memory->allocated_peak = stats.allocated_bytes[all].peak;
    memory->reserved = stats.reserved_bytes[all].current;
    memory->reserved_peak = stats.reserved_bytes[all].peak;
  });
}

int torch_bridge_cuda_reset_peak_memory(int device, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto index = checked(device);
    if (c10::cuda::CUDACachingAllocator::get()->initialized()) {
      c10::cuda::CUDACachingAllocator::resetPeakStats(index);
    }
  });
}

int torch_bridge_cuda_set_device(int device, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { c10::cuda::set_device(checked(device)); });
}

int torch_bridge_cuda_synchronize(int device, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { c10::cuda::getCurrentCUDAStream(checked(device)).synchronize(); });
}

int torch_bridge_cuda_empty_cache(char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    if (c10::cuda::CUDACachingAllocator::get()->initialized()) {
      c10::cuda::CUDACachingAllocator::emptyCache();
    }
  });
}

int torch_bridge_cuda_attach_nccl(
    size_t process_group, size_t store, int rank, int size, int device, int64_t timeout_ms, char* error,
    size_t error_size) {
  return guarded(error, error_size, [&] {
    const auto index = checked(device);
    auto* group = reinterpret_cast<c10d::ProcessGroup*>(process_group);
    const auto& c10d_store = *reinterpret_cast<const c10::intrusive_ptr<c10d::Store>*>(store);
    const c10::Device gpu(c10::DeviceType::CUDA, index);
    c10::cuda::set_device(index);

    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        c10::make_intrusive<c10d::PrefixStore>("nccl", c10d_store), rank, size, std::move(options));
    nccl->setSequenceNumberForGroup();
    group->setBoundDeviceId(gpu);
    group->setBackend(
        c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, c10::intrusive_ptr<c10d::Backend>(nccl));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
    nccl->eagerConnectSingleDevice(gpu);
  });
}

} // extern "C"
