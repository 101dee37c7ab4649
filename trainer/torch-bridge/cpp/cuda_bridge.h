/* The C interface of libtorch_bridge_cuda.so, which src/cuda.rs loads at run time and mirrors.
 *
 * A change here raises TORCH_BRIDGE_CUDA_INTERFACE_VERSION here and INTERFACE_VERSION there.
 *
 * Every function but the first returns 0, or 1 after writing a text closed by a zero into `error`, which has
 * room for `error_size` bytes. No exception leaves them, and each may be called from any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TORCH_BRIDGE_CUDA_INTERFACE_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct {
  uint64_t allocated;
  uint64_t allocated_peak;
  uint64_t reserved;
  uint64_t reserved_peak;
} torch_bridge_cuda_allocator_memory_t;

int torch_bridge_cuda_interface_version(void);

int torch_bridge_cuda_device_count(int* count, char* error, size_t error_size);
/* The name is cut to `name_size` bytes, its closing zero included. */
int torch_bridge_cuda_device_name(int device, char* name, size_t name_size, char* error, size_t error_size);
int torch_bridge_cuda_memory(int device, uint64_t* free_bytes, uint64_t* total_bytes, char* error, size_t error_size);
int torch_bridge_cuda_allocator_memory(
    int device, torch_bridge_cuda_allocator_memory_t* memory, char* error, size_t error_size);
int torch_bridge_cuda_reset_peak_memory(int device, char* error, size_t error_size);
int torch_bridge_cuda_set_device(int device, char* error, size_t error_size);
int torch_bridge_cuda_synchronize(int device, char* error, size_t error_size);
int torch_bridge_cuda_empty_cache(char* error, size_t error_size);

/* Adds NCCL for CUDA tensors to a process group and connects its communicator.
 * `process_group` is the address of a c10d::ProcessGroup, `store` that of a c10::intrusive_ptr<c10d::Store>. */
int torch_bridge_cuda_attach_nccl(
    size_t process_group, size_t store, int rank, int size, int device, int64_t timeout_ms, char* error,
    size_t error_size);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
