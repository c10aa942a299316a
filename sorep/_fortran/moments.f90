! Moments of weighted points about the nodes of a regular grid.
!
! The value v lies at the position x = (v - start) / spacing, and belongs to the node i = floor(x + 1/2):
! cells are half-open, so a value on a midpoint belongs to the node above it. Its offset is d = x - i, with
! -1/2 <= d < 1/2, and its weight w adds
!
!     sums(p, i) += w d**p      for p = 0 .. max_order
!
! Values outside 0 <= i < n_nodes, infinities and NaN among them, are skipped. The orders of one node are
! adjacent in memory, so that a value touches one or two cache lines. No module variables and no I/O: calls
! from several threads do not meet, as long as each has its own sums.
module moments
  implicit none
  private
  public :: scatter_moments

contains

  subroutine scatter_moments(values, weights, n_values, start, spacing, n_nodes, max_order, sums)
    integer, intent(in) :: n_values, n_nodes, max_order
    double precision, intent(in) :: values(n_values), weights(n_values), start, spacing
    double precision, intent(inout) :: sums(0:max_order, 0:n_nodes - 1)
    double precision :: position, shifted, offset, term
    integer :: v, node, order

    do v = 1, n_values
      position = (values(v) - start) / spacing
      shifted = position + 0.5d0
      ! Asked before the conversion to an integer, which is undefined for NaN and for what does not fit.
      if (.not. (shifted >= 0.0d0 .and. shifted < n_nodes)) cycle
      node = int(shifted)
      offset = position - node
      term = weights(v)
      sums(0, node) = sums(0, node) + term
      do order = 1, max_order
        term = term * offset
        sums(order, node) = sums(order, node) + term
      end do
    end do
  end subroutine scatter_moments

end module moments
