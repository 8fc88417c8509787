//! The providers of a registry by name. Readers look without a lock into a table that epochs guard; who registers and
//! unregisters takes turns.

use std::hash::BuildHasher;
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
pub(crate) struct Names<S = RandomState> {
    table: Place<Table>,
    book: Mutex<Book>,
    hashing: S,
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

impl<S: BuildHasher + Default> Default for Names<S> {
    fn default() -> Self {
        let hashing = S::default();
        let book = Book::of(Vec::new(), &hashing);
        Self { table: Place::sharing(&book.table), book: Mutex::new(book), hashing }
    }
}

impl<S> Drop for Names<S> {
    /// With the last of a registry, its memory is free too, not only when somebody looks into another.
    fn drop(&mut self) {
        let mut book = lock(&self.book);
        *book = Book::empty(FEWEST);
        self.table.store(&book.table);
        // Of the table, the fronts in it and the views in these.
        epoch::tidy_down(3);
    }
}

impl<S: BuildHasher> Names<S> {
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
            None => {
                let provider = |book: &Book| Some(book.find(name, &self.hashing)?.1.front.clone());
                // Whatever is done with it is done without the lock.
                let front = provider(&lock(&self.book))?;
                Some(then(&front))
            }
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
    fn of(providers: Vec<Arc<Provider>>, hashing: &impl BuildHasher) -> Self {
        let mut book = Self::empty((2 * (providers.len() + 1)).next_power_of_two().max(FEWEST));
        providers.into_iter().for_each(|provider| book.insert(provider, hashing));
        book
    }

    fn empty(cells: usize) -> Self {
        Self { table: Shared::new(Table::new(cells)), providers: vec![None; cells], used: 0 }
    }

    /// Whether one more leaves an eighth of the cells new: lookups of what is not there end at such a cell.
    fn has_room(&self) -> bool {
        8 * (self.used + 1) <= 7 * self.providers.len()
    }

    fn insert(&mut self, provider: Arc<Provider>, hashing: &impl BuildHasher) {
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

    fn find(&self, name: NameRef<'_>, hashing: &impl BuildHasher) -> Option<(usize, &Arc<Provider>)> {
        let hash = hash(name, hashing);
        let cells = self.table.cells(hash).map(|(at, cell)| (at, cell.hash.load(Ordering::Relaxed)));
        cells.take_while(|(_, of)| *of != 0).filter(|(_, of)| *of == hash).find_map(|(at, _)| {
            let provider = self.providers.get(at)?.as_ref()?;
            provider.front.name().is(name).then_some((at, provider))
        })
    }

    fn remove(&mut self, name: NameRef<'_>, hashing: &impl BuildHasher) -> Option<Arc<Provider>> {
        let (at, _) = self.find(name, hashing)?;
        self.table.0.get(at)?.front.store(None);
        seen_by_others();
        self.providers.get_mut(at)?.take()
    }
}

/// Never 0.
#[inline]
fn hash(name: NameRef<'_>, hashing: &impl BuildHasher) -> u64 {
    name.hash_by(hashing).max(1)
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("cells", &self.0.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, Hasher};

    use super::*;
    use crate::IdentityProviderRegistration;
    use crate::engine::{Engine, EngineParts};
    use crate::refresh::Source;

    /// Everybody's hash is the same: 0, at that.
    #[derive(Default)]
    struct Equal;

    impl Hasher for Equal {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            0
        }
    }

    fn provider(engine: &Arc<Engine>, tenant: &str) -> Arc<Provider> {
        let url = "https://id.example.com/jwks.json";
        let registration = IdentityProviderRegistration::new(tenant, "main", url).unwrap();
        let source = Source::new(registration, Arc::default(), &Arc::default(), engine);
        Provider::new(engine.clone(), source)
    }

    #[test]
    fn names_of_equal_hash_are_told_apart_while_they_come_and_go() {
        let engine = Engine::new(EngineParts::default());
        let names = Names::<BuildHasherDefault<Equal>>::default();
        let all: Vec<_> = (0..40).map(|number| format!("tenant-{number}")).collect();
        let found = |tenant: &str| names.with(NameRef(tenant, "main"), |front| front.tenant().to_owned());
        for (number, tenant) in all.iter().enumerate() {
            assert_eq!(found(tenant), None);
            names.insert(provider(&engine, tenant));
            // Of every two one goes, and leaves its cell to the next, or open.
            if number % 2 == 1 {
                let gone = &all[number / 2];
                let left = names.remove(NameRef(gone, "main"));
                assert_eq!(left.map(|it| it.tenant().to_owned()).as_ref(), Some(gone));
                assert!(names.remove(NameRef(gone, "main")).is_none());
            }
            for (other, tenant) in all.iter().enumerate() {
                let there = other <= number && other >= number.div_ceil(2);
                assert_eq!(found(tenant).as_ref(), there.then_some(tenant), "{tenant} after {number}");
            }
        }
        assert_eq!(names.providers().len(), 20);
    }
}
