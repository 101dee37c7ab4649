use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Memory of finished batches. Fresh memory would cost the kernel's work of zeroing and mapping
/// every page anew for each batch.
#[derive(Debug)]
pub(super) struct BufferPool {
    free: Mutex<Vec<Vec<u8>>>,
    limit: usize,
}

impl BufferPool {
    /// A pool that keeps up to `limit` buffers.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            free: Mutex::new(Vec::new()),
            limit,
        }
    }

    /// A buffer of `length` bytes, whatever they are.
    pub(super) fn take(pool: &Arc<Self>, length: usize) -> PixelBuffer {
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = free.pop().unwrap_or_default();
        drop(free);
        bytes.resize(length, 0);
        PixelBuffer {
            bytes,
            pool: Arc::downgrade(pool),
        }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.limit && bytes.capacity() > 0 {
            free.push(bytes);
        }
    }
}

/// The pixels of a batch. Their memory goes back to the loader when they are dropped.
#[derive(Debug, Default)]
pub struct PixelBuffer {
    bytes: Vec<u8>,
    pool: Weak<BufferPool>,
}

impl Deref for PixelBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for PixelBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for PixelBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let pool = Arc::new(BufferPool::new(1));
        let first = BufferPool::take(&pool, 1000);
        let second = BufferPool::take(&pool, 500);
        let address = first.as_ptr();
        drop((first, second));
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        let again = BufferPool::take(&pool, 1000);
        assert_eq!((again.len(), again.as_ptr()), (1000, address));
        drop(pool);
        // The loader is gone, the consumer still has a batch.
        drop(again);
    }
}
