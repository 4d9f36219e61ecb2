//! The way of one frame: disk cache, bytes at hand, ranged GET by hint, and where that fails the block's own directory.
//!
//! Whatever the source, the frame is decrypted by the same function, which verifies its tag first: a source can only fail,
//! never give wrong bytes. Called by `blocks` and `prefetch`, which see to it that one frame is not fetched twice at once.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::blocking;
use crate::buffers::Buffers;
use crate::cache::{Cache, Form, FrameKey, Spot};
use crate::crypto::pieces::{self, PieceCipher, Stretch};
use crate::crypto::{Opened, VolumeKeys};
use crate::format::block::{FramePlace, TRAILER_LEN, Trailer};
use crate::format::directory::Directory;
use crate::format::entry::{Hint, Place};
use crate::format::frame::{ENCRYPTED_LEN_MAX, FrameKind};
use crate::id::{BlockId, ObjectKey};
use crate::repo::blocks::kind_of;
use crate::repo::blocks::windows::Windows;
use crate::repo::{Error, layout};
use crate::store::Store;

/// The most bytes that are read in pieces: whoever reads more at once goes on reading, and is served better by whole frames.
const PIECE_READ_MAX: usize = 64 << 10;
/// The shortest frame that is cut into pieces.
const CUT_LEN_MIN: u32 = 64 << 10;

/// Of as many blocks as the disk cache holds by default.
const CIPHERS_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// Frames that are being cut, or put together, at once, most often.
const AT_HAND_AT_ONCE: usize = 4;
/// Where the memory cache is full, each frame that comes sends one away: so few wait in between.
const PLAIN_KEPT_MAX: usize = 8;

/// What it takes to fetch and prove frames of one volume.
pub(super) struct Fetch {
    store: Store,
    cache: Cache,
    keys: VolumeKeys,
    windows: Windows,
    /// What cuts and reads the blocks used last: deriving their keys takes as long as reading a piece.
    ciphers: Mutex<LruCache<BlockId, Arc<PieceCipher>>>,
    /// In which frames are read from the disk cache, put together and cut.
    encrypted: Buffers,
    /// In which frames are decrypted, and stay for as long as anybody holds what was in them.
    plain: Arc<Buffers>,
}

impl Fetch {
    pub(super) fn new(store: Store, cache: Cache, keys: VolumeKeys) -> Self {
        Self {
            store,
            cache,
            keys,
            windows: Windows::default(),
            ciphers: Mutex::new(LruCache::new(CIPHERS_MAX)),
            encrypted: Buffers::new(AT_HAND_AT_ONCE),
            plain: Arc::new(Buffers::new(PLAIN_KEPT_MAX)),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// What the frame is cached by.
    pub(super) fn key(&self, place: &Place) -> FrameKey {
        FrameKey {
            volume: self.keys.volume(),
            block: place.at.block,
            frame: place.at.frame,
        }
    }

    /// The object that `place` lies in.
    pub(super) fn object(&self, place: &Place) -> Result<ObjectKey, Error> {
        let volume = self.keys.volume();
        let object = match &place.hint.commit {
            Some(name) => Some(layout::commit(volume, name)),
            None => layout::block(volume, place.at.block),
        };
        object.ok_or_else(|| {
            let prefix = ObjectKey::new(layout::commits_prefix(volume));
            Error::damaged(
                &prefix,
                "an address lies in a commit and does not say in which",
            )
        })
    }

    /// That the frame at `place` is damaged.
    pub(super) fn damaged(&self, place: &Place, why: impl std::fmt::Display) -> Error {
        match self.object(place) {
            Ok(object) => Error::damaged(&object, format!("frame {}: {why}", place.at.frame)),
            Err(error) => error,
        }
    }

    /// Verifies, decrypts and decompresses.
    ///
    /// Runs on the caller's own thread: the largest frame takes about 1 ms, which a runtime of several threads does not feel, and
    /// handing it to another thread and back would cost a small frame more than the work itself.
    pub(super) fn decrypt(
        &self,
        place: &Place,
        kind: FrameKind,
        bytes: Bytes,
    ) -> Result<Proven, crate::crypto::Error> {
        let opened = self.open(place, kind, &bytes)?;
        Ok(Proven {
            place: place.clone(),
            kind,
            plain: opened.plain,
            encrypted: bytes,
            is_uncompressed: opened.is_uncompressed,
        })
    }

    fn open(
        &self,
        place: &Place,
        kind: FrameKind,
        bytes: &[u8],
    ) -> Result<Opened, crate::crypto::Error> {
        // Only a commit's body is bound to its object's name. Data beside it keeps its address when it is moved elsewhere.
        let cipher = self.keys.block(place.at.block);
        cipher.open(place.at.frame, kind, None, bytes, &self.plain)
    }

    /// `len` bytes from `place` on out of the disk cache, without the rest of the frame: for whoever reads a little here and there.
    /// `None` if they are not there, or the frame is on its way or in memory whole. What does not verify is dropped.
    pub(super) async fn piece(self: &Arc<Self>, place: &Place, len: usize) -> Option<Bytes> {
        let begin = place.at.inner as usize;
        let worth_it =
            self.cache.has_disk() && len <= PIECE_READ_MAX && is_cut(place, kind_of(place));
        if !worth_it || self.cache.plain(&self.key(place)).is_some() {
            return None;
        }
        let stretch = Stretch::of(place.hint.len, begin..begin.checked_add(len)?)?;
        let (fetch, place) = (self.clone(), place.clone());
        let read = blocking::run(move || {
            let (key, spot) = (fetch.key(&place), spot(&place, Form::Cut));
            let part = stretch.bytes.clone();
            let bytes = fetch.cache.part_of_encrypted(&key, &spot, part)?;
            let cipher = fetch.pieces(place.at.block)?;
            let piece = cipher.open(place.at.frame, kind_of(&place), &stretch, &bytes);
            if piece.is_none() {
                // Else every read of it would go by the whole frame from now on.
                fetch.cache.drop_encrypted(&key, &spot);
            }
            piece
        });
        read.await.flatten().map(Bytes::from)
    }

    /// See [`VolumeKeys::pieces`].
    fn pieces(&self, block: BlockId) -> Option<Arc<PieceCipher>> {
        let mut ciphers = self.ciphers.lock();
        if let Some(cipher) = ciphers.get(&block) {
            return Some(cipher.clone());
        }
        let cipher = Arc::new(self.keys.pieces(block)?);
        ciphers.put(block, cipher.clone());
        Some(cipher)
    }

    /// The plaintext of the frame, from wherever it is nearest.
    pub(super) async fn frame(
        self: &Arc<Self>,
        place: &Place,
        kind: FrameKind,
    ) -> Result<Bytes, Error> {
        if let Some(plain) = self.cache.plain(&self.key(place)) {
            return Ok(plain);
        }
        let object = self.object(place)?;
        if place.hint.len as usize > ENCRYPTED_LEN_MAX {
            return Err(self.damaged(place, "its address asks for more than a frame can hold"));
        }
        if let Some(plain) = self.read_disk(place, kind).await {
            self.keep_plain(place, kind, &plain);
            return Ok(plain);
        }
        let proven = match self.read_window(&object, place, kind) {
            Some(found) => found,
            None => self.read_store(&object, place, kind).await?,
        };
        self.keep_plain(place, kind, &proven.plain);
        let plain = proven.plain.clone();
        self.keep_on_disk(vec![proven]).await;
        Ok(plain)
    }

    /// From the disk cache. What does not verify there is dropped, and fetched again by the caller.
    async fn read_disk(self: &Arc<Self>, place: &Place, kind: FrameKind) -> Option<Bytes> {
        if !self.cache.has_disk() {
            return None;
        }
        let (fetch, place) = (self.clone(), place.clone());
        let read = blocking::run(move || fetch.look_on_disk(&place, kind));
        read.await.flatten()
    }

    /// The same on this thread.
    pub(super) fn look_on_disk(&self, place: &Place, kind: FrameKind) -> Option<Bytes> {
        let key = self.key(place);
        let read = |spot| self.cache.encrypted(&key, spot, &self.encrypted);
        let (whole, cut) = (spot(place, Form::Whole), spot(place, Form::Cut));
        let (found, bytes) = match read(&whole) {
            Some(bytes) => (whole, bytes),
            None if is_cut(place, kind) => (cut, self.put_together(place, read(&cut)?)?),
            None => return None,
        };
        let opened = self.open(place, kind, &bytes);
        self.encrypted.give(bytes);
        if opened.is_err() {
            self.cache.drop_encrypted(&key, &found);
        }
        Some(opened.ok()?.plain)
    }

    fn put_together(&self, place: &Place, cut: Vec<u8>) -> Option<Vec<u8>> {
        let len = place.hint.len;
        let mut whole = self.encrypted.take(len as usize);
        let is_whole = pieces::put_together(&cut, len, &mut whole);
        self.encrypted.give(cut);
        is_whole.map(|()| whole)
    }

    /// Whether the disk cache seems to have the frame. Blocks on the disk.
    pub(super) fn is_on_disk(&self, place: &Place) -> bool {
        let key = self.key(place);
        let has = |form| self.cache.has_encrypted(&key, &spot(place, form));
        has(Form::Whole) || is_cut(place, kind_of(place)) && has(Form::Cut)
    }

    /// From a stretch that was fetched a moment ago.
    fn read_window(&self, object: &ObjectKey, place: &Place, kind: FrameKind) -> Option<Proven> {
        let bytes = self.windows.get(object, &hinted(place)?)?;
        match self.decrypt(place, kind, bytes) {
            Ok(proven) => Some(proven),
            Err(_) => {
                self.windows.forget(object);
                None
            }
        }
    }

    /// From the store: by the hint, and if that does not verify by what the object itself says.
    async fn read_store(
        &self,
        object: &ObjectKey,
        place: &Place,
        kind: FrameKind,
    ) -> Result<Proven, Error> {
        if let Some(range) = hinted(place) {
            let bytes = self.get_hinted(object, &range, kind).await?;
            if let Ok(proven) = self.decrypt(place, kind, bytes) {
                return Ok(proven);
            }
            self.windows.forget(object);
        }
        // Asking a second time also heals what was only damaged on its way here.
        let Some(found) = self.look_up(object, place).await? else {
            return Err(self.damaged(
                place,
                "it is neither where its address says nor in the object's directory",
            ));
        };
        let range = found.offset..found.offset + u64::from(found.len);
        let bytes = self.get(object, range).await?;
        self.decrypt(place, kind, bytes)
            .map_err(|error| self.damaged(place, error))
    }

    async fn get(&self, object: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let got = self.store.get_range(object, range).await;
        got.map_err(|error| Error::of_store(object, error))
    }

    /// The frame's bytes, for a page with what lies around it. Shorter if the object is.
    async fn get_hinted(
        &self,
        object: &ObjectKey,
        range: &Range<u64>,
        kind: FrameKind,
    ) -> Result<Bytes, Error> {
        if kind != FrameKind::Page {
            return self.get(object, range.clone()).await;
        }
        let around = self.windows.around(object, range);
        let bytes = self.get(object, around.clone()).await?;
        let begin = ((range.start - around.start) as usize).min(bytes.len());
        let end = ((range.end - around.start) as usize).min(bytes.len());
        let page = bytes.slice(begin..end);
        self.windows.put(object.clone(), around.start, bytes);
        Ok(page)
    }

    /// Where the object's own authenticated directory says that the frame lies; `None` if it does not hold it.
    async fn look_up(
        &self,
        object: &ObjectKey,
        place: &Place,
    ) -> Result<Option<FramePlace>, Error> {
        let directory = self.directory(object, place.at.block).await?;
        let wanted = |entry: &&crate::format::directory::DirectoryEntry| {
            entry.block == place.at.block && entry.place.frame == place.at.frame
        };
        Ok(directory
            .entries()
            .iter()
            .find(wanted)
            .map(|entry| entry.place))
    }

    /// The directory of an object that was written as block `id`.
    pub(super) async fn directory(
        &self,
        object: &ObjectKey,
        id: BlockId,
    ) -> Result<Directory, Error> {
        let len = self.store.head(object).await?;
        let len = len.ok_or_else(|| Error::Missing {
            object: object.clone(),
        })?;
        let read = async {
            let end = self
                .get(object, len.saturating_sub(TRAILER_LEN)..len)
                .await?;
            let trailer = Trailer::decode(&end).map_err(|why| Error::damaged(object, why))?;
            let range = trailer
                .directory_range(len)
                .map_err(|why| Error::damaged(object, why))?;
            let bytes = self.get(object, range).await?;
            Directory::open(&bytes, &trailer, len, &self.keys.block(id))
                .map_err(|why| Error::damaged(object, why))
        };
        read.await
    }

    /// Keeps proven frames on disk. It is waited for: it takes far less than the GET before it, and so the cache never owes more
    /// than what is being read.
    pub(super) async fn keep_on_disk(self: &Arc<Self>, frames: Vec<Proven>) {
        if !self.cache.has_disk() || frames.is_empty() {
            return;
        }
        let fetch = self.clone();
        // Never on a thread that answers requests: making room takes longer than they should wait.
        let put = tokio::task::spawn_blocking(move || {
            for frame in frames {
                fetch.put_on_disk(&frame);
            }
        });
        // Only a runtime that is shutting down fails this, and the cache can do without.
        let _ = put.await;
    }

    /// The same on this thread: cut into pieces where that is of any use.
    pub(super) fn put_on_disk(&self, frame: &Proven) {
        let place = &frame.place;
        let whole = || self.keep_encrypted(place, &frame.encrypted);
        if !frame.is_uncompressed || !is_cut(place, frame.kind) {
            return whole();
        }
        let spot = spot(place, Form::Cut);
        let mut buffer = self.encrypted.take(spot.len as usize);
        let mut cut = || {
            let cipher = self.pieces(place.at.block)?;
            let plain_len = frame.plain.len();
            let (number, bytes) = (place.at.frame, &frame.encrypted);
            cipher.cut(number, frame.kind, bytes, plain_len, &mut buffer)
        };
        match cut() {
            Some(()) => self.cache.put_encrypted(&self.key(place), &spot, &buffer),
            None => whole(),
        }
        self.encrypted.give(buffer);
    }

    /// Keeps a frame on disk as it is. Blocks on the disk.
    pub(super) fn keep_encrypted(&self, place: &Place, frame: &[u8]) {
        let spot = spot(place, Form::Whole);
        self.cache.put_encrypted(&self.key(place), &spot, frame);
    }

    /// Pages are kept decoded, by `blocks`.
    pub(super) fn keep_plain(&self, place: &Place, kind: FrameKind, plain: &Bytes) {
        if kind != FrameKind::Page {
            self.cache.put_plain(self.key(place), plain.clone());
        }
    }
}

/// A frame that has been proven, both ways.
pub(super) struct Proven {
    place: Place,
    kind: FrameKind,
    pub(super) plain: Bytes,
    encrypted: Bytes,
    is_uncompressed: bool,
}

/// Where the disk cache has a frame in this form.
fn spot(place: &Place, form: Form) -> Spot {
    let Hint { offset, len, .. } = place.hint;
    let len = match form {
        Form::Whole => len,
        Form::Cut => pieces::cut_len(len),
    };
    Spot { offset, form, len }
}

/// Whether the frame at `place` is cut into pieces on disk, if it is not compressed. The smaller ones are read whole as quickly.
fn is_cut(place: &Place, kind: FrameKind) -> bool {
    kind == FrameKind::Data && place.hint.len >= CUT_LEN_MIN
}

/// The stretch that an address hints at; `None` if it is beyond what numbers hold.
fn hinted(place: &Place) -> Option<Range<u64>> {
    let end = place.hint.offset.checked_add(place.hint.len.into())?;
    Some(place.hint.offset..end)
}
