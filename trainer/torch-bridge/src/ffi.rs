//! The one boundary to C++: what is declared here is defined in `cpp/`, and nothing else is.
//!
//! Every function that can throw returns a `Result`. Tensor lists cross as [`Tensors`], lists of owned
//! handles, so no raw array of pointers is ever handed over.
#![allow(
    missing_docs,
    unused_qualifications,
    reason = "documented where they are wrapped; cxx generates the rest"
)]

pub(crate) use bridge::*;

#[cxx::bridge(namespace = "torch_bridge")]
mod bridge {
    struct TcpSettings {
        host: String,
        port: u16,
        is_server: bool,
        /// 0 when not known.
        world_size: usize,
        wait_workers: bool,
        timeout_ms: i64,
    }

    struct GlooSettings {
        /// Empty for none.
        interface_name: String,
        /// Empty for none.
        hostname: String,
        threads: i32,
        timeout_ms: i64,
    }

    struct ReducerSettings {
        initial_limits: Vec<usize>,
        bucket_cap_bytes: i64,
        first_bucket_bytes: i64,
        find_unused_parameters: bool,
        gradient_as_bucket_view: bool,
        compress_fp16: bool,
    }

    struct SgdSettings {
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
        first_step: bool,
    }

    struct AdamSettings {
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
    }

    struct SyncNormSettings {
        counts: bool,
        momentum: f64,
        eps: f64,
    }

    unsafe extern "C++" {
        include!("torch-bridge/cpp/bridge.h");

        #[namespace = "at"]
        type Tensor;

        type Tensors;
        fn new_tensors() -> UniquePtr<Tensors>;
        fn push(self: Pin<&mut Tensors>, tensor: &Tensor);
        fn size(self: &Tensors) -> usize;
        fn handle(self: &Tensors, index: usize) -> Result<*mut Tensor>;

        type Store;
        fn open_tcp_store(settings: &TcpSettings, bound_port: &mut u16)
        -> Result<UniquePtr<Store>>;
        fn open_file_store(path: &str, workers: i32) -> Result<UniquePtr<Store>>;
        fn prefixed_store(store: &Store, prefix: &str) -> Result<UniquePtr<Store>>;
        fn reopen_store(store: &Store) -> Result<UniquePtr<Store>>;
        fn set(self: &Store, key: &str, value: &[u8]) -> Result<()>;
        fn get(self: &Store, key: &str) -> Result<Vec<u8>>;
        fn add(self: &Store, key: &str, amount: i64) -> Result<i64>;
        fn check(self: &Store, keys: &[String]) -> Result<bool>;
        fn wait(self: &Store, keys: &[String], timeout_ms: i64) -> Result<()>;
        fn remove(self: &Store, key: &str) -> Result<bool>;

        type Work;
        fn is_completed(self: &Work) -> Result<bool>;
        fn wait(self: &Work) -> Result<()>;

        type Group;
        fn new_group(
            store: &Store,
            rank: i32,
            size: i32,
            settings: &GlooSettings,
        ) -> Result<UniquePtr<Group>>;
        fn all_reduce(self: &Group, tensor: &Tensors, op: u8) -> Result<UniquePtr<Work>>;
        fn all_reduce_coalesced(self: &Group, tensors: &Tensors, op: u8)
        -> Result<UniquePtr<Work>>;
        fn broadcast(self: &Group, tensor: &Tensor, root: i32) -> Result<UniquePtr<Work>>;
        fn broadcast_coalesced(
            self: &Group,
            tensors: &Tensors,
            buffer_bytes: usize,
            root: i32,
        ) -> Result<()>;
        fn all_gather(
            self: &Group,
            input: &Tensor,
            outputs: Pin<&mut Tensors>,
        ) -> Result<UniquePtr<Work>>;
        fn barrier(self: &Group) -> Result<UniquePtr<Work>>;
        fn monitored_barrier(self: &Group, timeout_ms: i64) -> Result<()>;
        fn verify_params(self: &Group, params: &Tensors) -> Result<()>;
        fn abort(self: &Group) -> Result<()>;
        fn process_group_address(self: &Group) -> usize;
        fn store_address(self: &Group) -> usize;

        fn sync_batch_norm(
            group: &Group,
            x: &Tensor,
            weight: &Tensor,
            bias: &Tensor,
            running_mean: &Tensor,
            running_variance: &Tensor,
            settings: &SyncNormSettings,
        ) -> Result<*mut Tensor>;

        type Reducer;
        fn new_reducer(
            group: &Group,
            params: &Tensors,
            names: &[String],
            settings: &ReducerSettings,
        ) -> Result<UniquePtr<Reducer>>;
        fn prepare_for_forward(self: &Reducer) -> Result<()>;
        fn rebuild_buckets(self: &Reducer) -> Result<bool>;
        fn prepare_for_backward(self: &Reducer, outputs: &Tensors) -> Result<()>;
        fn bucket_count(self: &Reducer) -> Result<usize>;

        fn fused_sgd(
            params: &Tensors,
            grads: &Tensors,
            momentum_buffers: &Tensors,
            settings: &SgdSettings,
            grad_scale: &Tensors,
            found_inf: &Tensors,
        ) -> Result<()>;
        fn fused_adam(
            params: &Tensors,
            grads: &Tensors,
            moments: &Tensors,
            step: &Tensor,
            settings: &AdamSettings,
            grad_scale: &Tensors,
            found_inf: &Tensors,
        ) -> Result<()>;
        fn foreach_lerp(targets: &Tensors, sources: &Tensors, weight: f64) -> Result<()>;
        fn foreach_copy(targets: &Tensors, sources: &Tensors) -> Result<()>;
        fn foreach_zero(targets: &Tensors) -> Result<()>;
        fn foreach_scale(targets: &Tensors, factor: &Tensor) -> Result<()>;
        fn foreach_norm(tensors: &Tensors, order: f64) -> Result<UniquePtr<Tensors>>;
        fn sum_of_squares(tensors: &Tensors) -> f64;
        fn unscale(grads: &Tensors, inverse_scale: &Tensor, found_inf: &Tensor) -> Result<()>;

        fn is_dense(tensor: &Tensor) -> bool;
        fn is_channels_last(tensor: &Tensor) -> bool;
        fn contiguous_channels_last(tensor: &Tensor) -> Result<*mut Tensor>;

        fn leaky_relu(tensor: &Tensor, slope: f64) -> Result<*mut Tensor>;
        fn elu(tensor: &Tensor, alpha: f64) -> Result<*mut Tensor>;
        fn pick(table: &Tensor, column: i64, places: &Tensors) -> Result<UniquePtr<Tensors>>;
        fn norm_silu(
            x: &Tensor,
            norm: &Tensors,
            momentum: f64,
            eps: f64,
            added: &Tensors,
            beside: &Tensors,
            twice: bool,
        ) -> Result<UniquePtr<Tensors>>;
        fn split_norm_silu(
            x: &Tensor,
            first: &Tensors,
            last: &Tensors,
            momentum: f64,
            eps: f64,
            twice: bool,
        ) -> Result<UniquePtr<Tensors>>;
        fn use_machine(name: &str) -> bool;

        fn autocast_enabled(cuda: bool) -> Result<bool>;
        fn autocast_kind(cuda: bool) -> Result<i32>;
        fn set_autocast(cuda: bool, enabled: bool, kind: i32) -> Result<()>;
        fn autocast_enter() -> Result<()>;
        fn autocast_leave() -> Result<()>;

        fn set_num_threads(threads: i32) -> Result<()>;
        fn num_threads() -> i32;
        fn set_num_interop_threads(threads: i32) -> Result<()>;
        fn cpu_capability() -> String;
        fn torch_version() -> String;
        fn set_deterministic(enabled: bool) -> Result<()>;
        fn set_flush_denormal(enabled: bool) -> Result<bool>;
        fn set_allow_tf32(enabled: bool) -> Result<()>;
    }
}
