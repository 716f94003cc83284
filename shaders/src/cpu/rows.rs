//! Rows of cells in memory that is wider than they are.

/// Where the first row starts and how far it is to the next.
#[derive(Clone, Copy)]
pub(crate) struct Rows<P> {
    pub(crate) ptr: P,
    pub(crate) stride: usize,
}

impl<P> Rows<P> {
    const fn moved(&self, row: usize, column: usize) -> usize {
        row * self.stride + column
    }
}

impl Rows<*const f32> {
    /// The same rows seen from another cell.
    ///
    /// # Safety
    /// The cell lies inside the memory that the rows came from.
    #[inline(always)]
    pub(crate) unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: handed on to the caller.
        Self { ptr: unsafe { self.ptr.add(self.moved(row, column)) }, ..self }
    }
}

impl Rows<*mut f32> {
    /// For reading.
    pub(crate) const fn as_const(self) -> Rows<*const f32> {
        Rows { ptr: self.ptr.cast_const(), stride: self.stride }
    }

    /// The same rows seen from another cell.
    ///
    /// # Safety
    /// The cell lies inside the memory that the rows came from.
    #[inline(always)]
    pub(crate) unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: handed on to the caller.
        Self { ptr: unsafe { self.ptr.add(self.moved(row, column)) }, ..self }
    }
}
