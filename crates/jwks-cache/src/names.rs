//! The providers of a registry by name. Readers look without a lock into a table that epochs guard; who registers and
//! unregisters takes turns.

use std::sync::Arc;
use std::{fmt, iter, mem};

use foldhash::fast::RandomState;

use crate::epoch::{self, Guard, Place, Shared, Spot};
use crate::front::Front;
use crate::name::NameRef;
use crate::refresh::Provider;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock, seen_by_others};

#[derive(Debug)]
pub(crate) struct Names {
    table: Place<Table>,
    book: Mutex<Book>,
    hashing: RandomState,
}

/// Who owns the providers: what the table leads to may live longer.
#[derive(Debug)]
struct Book {
    /// The one that readers see.
    table: Shared<Table>,
    /// By their cells in the table.
    providers: Vec<Option<Arc<Provider>>>,
    /// Cells that are not new any more.
    used: usize,
}

/// A name stands in the cell that its hash says, or in one after it, before the first new one. It stays there for as long
/// as the table does.
struct Table(Box<[Cell]>);

#[derive(Default)]
struct Cell {
    /// 0 where nothing ever was; else of what came last.
    hash: AtomicU64,
    front: Spot<Front>,
}

/// Cells of a table before the first provider.
const FEWEST: usize = 8;

impl Table {
    fn new(cells: usize) -> Self {
        Self(iter::repeat_with(Cell::default).take(cells).collect())
    }

    /// The cells where something of this hash may stand, in order.
    #[inline]
    fn cells(&self, hash: u64) -> impl Iterator<Item = (usize, &Cell)> {
        // There is a power of two of them.
        let mask = self.0.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the low bits count")]
        let first = hash as usize;
        let all = (0..=mask).map(move |step| first.wrapping_add(step) & mask);
        all.filter_map(|at| Some((at, self.0.get(at)?)))
    }
}

impl Default for Names {
    fn default() -> Self {
        let hashing = RandomState::default();
        let book = Book::of(Vec::new(), &hashing);
        Self { table: Place::sharing(&book.table), book: Mutex::new(book), hashing }
    }
}

impl Drop for Names {
    /// With the last of a registry, its memory is free too, not only when somebody looks into another.
    fn drop(&mut self) {
        let mut book = lock(&self.book);
        *book = Book::of(Vec::new(), &self.hashing);
        self.table.store(&book.table);
        // Of the table, the fronts in it and the views in these.
        epoch::tidy_down(3);
    }
}

impl Names {
    /// What readers read of the provider of that name.
    #[inline]
    pub(crate) fn find<'g>(&self, name: NameRef<'_>, guard: &'g Guard) -> Option<&'g Front> {
        let hash = hash(name, &self.hashing);
        for (_, cell) in self.table.load(guard).cells(hash) {
            match cell.hash.load(Ordering::Acquire) {
                0 => return None,
                of if of == hash => match cell.front.load(guard) {
                    Some(front) if front.name().is(name) => return Some(front),
                    // It went, or another came, maybe at this moment.
                    _ => {}
                },
                _ => {}
            }
        }
        None
    }

    /// Lends what readers read of the provider of that name.
    pub(crate) fn with<R>(&self, name: NameRef<'_>, then: impl FnOnce(&Front) -> R) -> Option<R> {
        match epoch::enter() {
            Some(guard) => self.find(name, &guard).map(then),
            None => lock(&self.book).find(name, &self.hashing).map(|(_, provider)| then(&provider.front)),
        }
    }

    /// The provider of that name.
    pub(crate) fn provider(&self, name: NameRef<'_>) -> Option<Arc<Provider>> {
        self.with(name, Front::provider)?
    }

    /// All of them, in no order.
    pub(crate) fn providers(&self) -> Vec<Arc<Provider>> {
        lock(&self.book).providers.iter().flatten().cloned().collect()
    }

    /// Adds a provider whose name is new.
    pub(crate) fn insert(&self, provider: Arc<Provider>) {
        let mut book = lock(&self.book);
        if !book.has_room() {
            let all = mem::take(&mut book.providers).into_iter().flatten().collect();
            *book = Book::of(all, &self.hashing);
            self.table.store(&book.table);
            seen_by_others();
        }
        book.insert(provider, &self.hashing);
    }

    /// Takes a provider out, if it is there.
    pub(crate) fn remove(&self, name: NameRef<'_>) -> Option<Arc<Provider>> {
        lock(&self.book).remove(name, &self.hashing)
    }
}

impl Book {
    /// With a table of their own, half empty.
    fn of(providers: Vec<Arc<Provider>>, hashing: &RandomState) -> Self {
        let cells = (2 * (providers.len() + 1)).next_power_of_two().max(FEWEST);
        let table = Shared::new(Table::new(cells));
        let mut book = Self { table, providers: vec![None; cells], used: 0 };
        providers.into_iter().for_each(|provider| book.insert(provider, hashing));
        book
    }

    /// Whether one more leaves an eighth of the cells new: lookups of what is not there end at such a cell.
    fn has_room(&self) -> bool {
        8 * (self.used + 1) <= 7 * self.providers.len()
    }

    fn insert(&mut self, provider: Arc<Provider>, hashing: &RandomState) {
        let hash = hash(provider.front.name().parts(), hashing);
        for (at, cell) in self.table.cells(hash) {
            if let Some(free @ None) = self.providers.get_mut(at) {
                // In this order: who sees the hash sees the front.
                cell.front.store(Some(provider.front.clone()));
                seen_by_others();
                self.used += usize::from(cell.hash.swap(hash, Ordering::AcqRel) == 0);
                *free = Some(provider);
                return;
            }
        }
    }

    fn find(&self, name: NameRef<'_>, hashing: &RandomState) -> Option<(usize, &Arc<Provider>)> {
        let mut cells = self.table.cells(hash(name, hashing));
        cells.find_map(|(at, _)| {
            let provider = self.providers.get(at)?.as_ref()?;
            provider.front.name().is(name).then_some((at, provider))
        })
    }

    fn remove(&mut self, name: NameRef<'_>, hashing: &RandomState) -> Option<Arc<Provider>> {
        let (at, _) = self.find(name, hashing)?;
        self.table.0.get(at)?.front.store(None);
        self.providers.get_mut(at)?.take()
    }
}

/// Never 0.
#[inline]
fn hash(name: NameRef<'_>, hashing: &RandomState) -> u64 {
    name.hash_by(hashing).max(1)
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("cells", &self.0.len()).finish_non_exhaustive()
    }
}
