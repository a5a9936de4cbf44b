//! Pages: buffers of bytes to send, written once and shared by all connections that send them.
//!
//! A page is filled during a turn and only read afterwards. An outbox that has yet to send a part of it keeps a [`Chunk`] (a
//! range) and one reference. The last release returns the page to the pool. The reference counts are plain integers,
//! because pages never leave their shard.

use slab::Slab;

/// Index of a page in its [`Pages`].
pub type PageId = u32;

/// A range of a page. Holding one across turns costs one reference ([`Pages::hold`], [`Pages::release`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The page.
    pub page: PageId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Chunk {
    /// Bytes in the range.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the range is empty.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

struct Page {
    data: Vec<u8>,
    references: u32,
    /// Heap bytes that live as long as the page, besides its data.
    beside: u16,
    /// It holds what one connection each is sent: replies, and no messages of channels.
    is_single: bool,
}

impl Page {
    fn bytes(&self) -> usize {
        self.data.capacity() + usize::from(self.beside)
    }
}

/// The pages of one shard, and the pool that they return to.
#[derive(Default)]
pub struct Pages {
    pages: Slab<Page>,
    pool: Vec<Vec<u8>>,
    pool_bytes: usize,
    /// Capacity of all pages, pooled or in use, and what lives beside them.
    held_bytes: usize,
    /// Result of the last [`Pages::gather`].
    gathered: Vec<u8>,
    /// The turn's page for frames to single connections.
    single: Option<PageId>,
}

impl Pages {
    /// Starts an empty page with one reference, the writer's.
    pub fn open(&mut self) -> PageId {
        let data = match self.pool.pop() {
            Some(data) => {
                self.pool_bytes -= data.capacity();
                data
            }
            None => {
                let data = Vec::with_capacity(PAGE_BYTES_MIN);
                self.held_bytes += data.capacity();
                data
            }
        };
        self.pages.insert(Page { data, references: 1, beside: 0, is_single: false }) as PageId
    }

    /// Lets `write` append to the page. Returns the chunk of the appended bytes. Bytes that a chunk may cover never change.
    pub fn append(&mut self, page: PageId, write: impl FnOnce(&mut Vec<u8>)) -> Chunk {
        let data = &mut self.pages[page as usize].data;
        let (start, before) = (data.len() as u32, data.capacity());
        write(data);
        self.held_bytes += data.capacity() - before;
        Chunk { page, start, end: data.len() as u32 }
    }

    /// Lets `write` append bytes for one connection: a reply, a heartbeat, a close frame. Such bytes share a page, which
    /// holds a reference of its own until [`Pages::end_turn`].
    pub fn append_single(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Chunk {
        let page = match self.single {
            Some(page) if !self.is_full_for(page, 0) => page,
            _ => self.open_single(),
        };
        self.append(page, write)
    }

    #[cold]
    fn open_single(&mut self) -> PageId {
        self.end_turn();
        let page = self.open();
        self.pages[page as usize].is_single = true;
        self.single = Some(page);
        page
    }

    /// Closes the page of [`Pages::append_single`].
    pub fn end_turn(&mut self) {
        if let Some(page) = self.single.take() {
            self.release(page);
        }
    }

    /// Bytes written so far.
    pub fn page_len(&self, page: PageId) -> u32 {
        self.pages[page as usize].data.len() as u32
    }

    /// The bytes of a chunk.
    pub fn bytes(&self, chunk: Chunk) -> &[u8] {
        &self.pages[chunk.page as usize].data[chunk.start as usize..chunk.end as usize]
    }

    /// The bytes of several chunks, copied into one buffer that the next call overwrites.
    pub fn gather(&mut self, chunks: impl Iterator<Item = Chunk>) -> &[u8] {
        let Pages { pages, gathered, .. } = self;
        gathered.clear();
        for chunk in chunks {
            gathered.extend_from_slice(&pages[chunk.page as usize].data[chunk.start as usize..chunk.end as usize]);
        }
        gathered
    }

    /// Whether the page holds replies, and no messages of channels.
    pub fn is_single(&self, page: PageId) -> bool {
        self.pages[page as usize].is_single
    }

    /// Adds a reference.
    pub fn hold(&mut self, page: PageId) {
        self.pages[page as usize].references += 1;
    }

    /// Removes a reference. The last one returns the page to the pool.
    pub fn release(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        let Page { mut data, beside, .. } = self.pages.remove(page as usize);
        self.held_bytes -= usize::from(beside);
        let poolable = (PAGE_BYTES_MIN..=2 * PAGE_BYTES).contains(&data.capacity());
        if poolable && self.pool_bytes + data.capacity() <= POOL_BYTES_MAX {
            data.clear();
            self.pool_bytes += data.capacity();
            self.pool.push(data);
        } else {
            self.held_bytes -= data.capacity();
        }
    }

    /// Copies `chunk` into a page of exactly its size, with one reference. The caller keeps its reference to the original.
    pub fn copy(&mut self, chunk: Chunk) -> Chunk {
        self.copy_with(chunk, 0)
    }

    /// The same, and counts `beside` heap bytes that are kept as long as the copy.
    pub fn copy_with(&mut self, chunk: Chunk, beside: u16) -> Chunk {
        let data = self.bytes(chunk).to_vec();
        self.held_bytes += data.capacity() + usize::from(beside);
        let end = data.len() as u32;
        let is_single = self.is_single(chunk.page);
        let page = self.pages.insert(Page { data, references: 1, beside, is_single }) as PageId;
        Chunk { page, start: 0, end }
    }

    /// Appends a copy of `chunk` to the page of `last`, if that page has no other reference and ends with `last`. Returns
    /// `last` extended by the copy.
    pub fn copy_behind(&mut self, last: Chunk, chunk: Chunk) -> Option<Chunk> {
        let page = &self.pages[last.page as usize];
        let is_own = page.references == 1 && page.data.len() == last.end as usize && last.page != chunk.page;
        if !is_own || self.is_full_for(last.page, chunk.len()) {
            return None;
        }
        let [to, from] = self.pages.get_disjoint_mut([last.page as usize, chunk.page as usize]).ok()?;
        let before = to.data.capacity();
        to.data.extend_from_slice(&from.data[chunk.start as usize..chunk.end as usize]);
        self.held_bytes += to.data.capacity() - before;
        Some(Chunk { end: last.end + chunk.len() as u32, ..last })
    }

    /// Whether a chunk is too small a part of its page to keep the page alive.
    pub fn pins_too_much(&self, chunk: Chunk) -> bool {
        chunk.len() * PINNED_FOLD < self.pages[chunk.page as usize].data.capacity()
    }

    /// Whether `more` bytes must go to another page.
    #[inline]
    pub fn is_full_for(&self, page: PageId, more: usize) -> bool {
        let len = self.pages[page as usize].data.len();
        len > 0 && len + more > PAGE_BYTES
    }

    /// Number of pages in use.
    pub fn held_count(&self) -> usize {
        self.pages.len()
    }

    /// Heap bytes of the pages in use.
    pub fn used_bytes(&self) -> usize {
        self.held_bytes - self.pool_bytes
    }

    /// Heap bytes of a page, and of what lives beside it.
    pub fn page_bytes(&self, page: PageId) -> usize {
        self.pages[page as usize].bytes()
    }

    /// The part of the page's heap bytes that one of its references keeps alive.
    pub fn share_bytes(&self, page: PageId) -> usize {
        self.page_bytes(page) / self.pages[page as usize].references as usize
    }

    /// Heap bytes of the pages in use and in the pool.
    pub fn held_bytes(&self) -> usize {
        let walked = || self.pages.iter().map(|(_, page)| page.bytes()).sum::<usize>() + self.pool_bytes;
        debug_assert_eq!(self.held_bytes, walked());
        self.held_bytes
    }
}

/// A page is closed at this size. Only a single larger message makes a larger page.
pub const PAGE_BYTES: usize = 64 * 1024;
/// Initial capacity of a page, and the smallest page that the pool keeps. So a turn with one short message allocates
/// nothing, and a slow reader keeps little memory alive for it.
const PAGE_BYTES_MIN: usize = 1024;
/// Heap bytes of a page besides its data. They count only for copies of single messages, which may be as small.
pub const ENTRY_BYTES: usize = 2 * size_of::<Page>();
/// Waiting output keeps at most this many times its bytes alive. It is 2, because a page grows by doubling.
pub const PINNED_FOLD: usize = 2;
/// Limit of the pool.
pub const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_release_returns_the_page() {
        let mut pages = Pages::default();
        let page = pages.open();
        pages.append(page, |out| out.extend_from_slice(b"hello world"));
        let chunk = Chunk { page, start: 6, end: 11 };
        pages.hold(page);
        pages.release(page);
        assert_eq!(pages.bytes(chunk), b"world");
        pages.release(page);
        assert_eq!(pages.held_count(), 0);
    }

    #[test]
    fn copy_outlives_the_original() {
        let mut pages = Pages::default();
        let page = pages.open();
        pages.append(page, |out| out.extend_from_slice(&[7; 4096]));
        let small = Chunk { page, start: 10, end: 20 };
        assert!(pages.pins_too_much(small));
        let copy = pages.copy(small);
        pages.release(page);
        assert_eq!(pages.bytes(copy), [7; 10]);
        assert!(!pages.pins_too_much(copy));
        pages.release(copy.page);
        assert_eq!(pages.held_count(), 0);
    }

    #[test]
    fn copies_for_one_reader_share_a_page() {
        let mut pages = Pages::default();
        let page = pages.open();
        pages.append(page, |out| out.extend_from_slice(b"one two three"));
        let (one, two) = (Chunk { page, start: 0, end: 4 }, Chunk { page, start: 4, end: 8 });
        assert_eq!(pages.copy_behind(one, two), None, "the page has a writer");
        let copy = pages.copy(one);
        let copy = pages.copy_behind(copy, two).expect("the copy has one reference");
        assert_eq!(pages.bytes(copy), b"one two ");
        assert_eq!(pages.copy_behind(Chunk { end: 4, ..copy }, two), None, "other bytes follow in the page");
        pages.hold(copy.page);
        assert_eq!(pages.copy_behind(copy, two), None, "the page has another reference");
        let full = Chunk { page, start: 0, end: PAGE_BYTES as u32 };
        pages.append(page, |out| out.resize(PAGE_BYTES, 0));
        pages.release(copy.page);
        assert_eq!(pages.copy_behind(copy, full), None, "a page has a maximum size");
    }

    #[test]
    fn pool_is_bounded_and_reused() {
        let mut pages = Pages::default();
        let open: Vec<_> = (0..200).map(|_| pages.open()).collect();
        for &page in &open {
            pages.append(page, |out| out.resize(PAGE_BYTES, 0));
        }
        for page in open {
            pages.release(page);
        }
        assert!(pages.held_bytes() <= POOL_BYTES_MAX);
        let page = pages.open();
        assert_eq!(pages.page_len(page), 0);
        pages.append(page, |out| assert!(out.capacity() >= PAGE_BYTES));
    }
}
