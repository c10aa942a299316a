! From Hermitian and real symmetric eigenproblems to eigenvalues, without eigenvectors.
!
!   reduce_*                  many small problems A c = e S c (or A c = e c) to tridiagonal matrices
!   solve_large               a large one to a tridiagonal matrix, with the products of a BLAS library
!   tridiagonal_eigenvalues   many tridiagonal matrices to eigenvalues
!
! A tridiagonal matrix is given by its diagonal and the squared moduli of the elements beside it, which is all that
! its eigenvalues depend on.
!
! Small problems are solved `lanes` at a time, and tridiagonal matrices up to `most` at a time: the first index of each
! array runs over the matrices of a batch, so that one instruction does the same to several of them. A matrix meets
! no number of its neighbours, and no branch depends on them: its result has the same bits wherever it stands in the
! batch. Large matrices are planes of real numbers and have a column's rows side by side.
!
! Small problems go through S = L L^H, W = L^-1 and C = W A W^H, whose eigenvalues are those sought. With T the lower
! triangle of A, its diagonal halved, Y = W T is lower triangular as well, and C = Y W^H + W Y^H. The trace of
! S^-1, which is the sum of |W_ij|^2, is at least the inverse of the smallest eigenvalue of S: a safe bound for free.
!
! The reduction to a tridiagonal matrix (Householder) applies the update A - v w^H - w v^H of the last reflection
! and multiplies by the vector u of the next one in the same pass over A, so that A is read and written once a step.
! Its reflections take a column x to a multiple of the first unit vector that has the phase of x_1: unlike LAPACK's
! they are Hermitian, and the elements beside the diagonal become complex, of which only the moduli matter.
!
! The last step is the root-free QL iteration of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue Problem,
! section 8.15; LAPACK's dsterf), rearranged so that it needs one division and no branch: a row above which
! the matrix has split needs no special case, since the recurrence starts afresh there by itself.
!
! No STOP, no I/O, no module variables. What cannot be solved (not positive definite, not finite, no memory) is
! reported: the bound or the flag of that matrix is zero or NaN.
module eigen
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_f_procpointer, c_int, c_intptr_t, c_loc, c_null_funptr, c_ptr
  implicit none
  private
  public :: reduce_real, reduce_complex, solve_large, tridiagonal_eigenvalues

  integer, parameter :: lanes = 4, most = 4 * lanes
  double precision, parameter :: negligible = 1d-280 ! square of a column that needs no reflection
  double precision, parameter :: smallest_norm = 1d-80, largest_norm = 1d80 ! whose cubes exist
  double precision, parameter :: relative = epsilon(1.0d0)**2 / 4, absolute = 1d-40, tiny = 1d-70

  abstract interface
    ! dgemm
    subroutine blas_product(form_a, form_b, m, n, k, alpha, a, columns_a, b, columns_b, beta, c, columns_c) bind(c)
      import :: c_char, c_double, c_int, c_ptr
      character(kind=c_char), intent(in) :: form_a, form_b
      integer(c_int), intent(in) :: m, n, k, columns_a, columns_b, columns_c
      real(c_double), intent(in) :: alpha, beta
      type(c_ptr), value :: a, b, c
    end subroutine blas_product
  end interface

contains

  ! Elements to leave out at the start of work so that what follows begins at a cache line.
  integer function misalignment(work)
    double precision, intent(in), target :: work(*)
    misalignment = int(modulo(-transfer(c_loc(work), 0_c_intptr_t), 64_c_intptr_t)) / 8
  end function misalignment

  ! ---------------------------------------------------------------- many small complex problems

  ! a(i, j, k) with i <= j is the element (j, i) of matrix k: the lower triangle of a C array. No overlaps: A c = e c.
  subroutine reduce_complex(a, s, n, n_k, n_overlaps, diagonal, squares, bound)
    integer, intent(in) :: n, n_k, n_overlaps
    complex(kind=8), intent(in) :: a(n, n, n_k), s(n, n, n_overlaps)
    double precision, intent(inout) :: diagonal(n, n_k), squares(n, n_k), bound(n_k)
    double precision, allocatable :: work(:)
    integer :: even, rows, matrix, vector, first, last, status, k, w

    even = n + mod(n, 2)
    rows = even + 1
    matrix = lanes * rows * (even + 2)
    vector = lanes * (n + 1)
    allocate(work(4 * matrix + 10 * vector + 8), stat=status)
    if (status /= 0) then
      diagonal = 0
      squares = 0
      bound = 0
      return
    end if
    k = 1 + misalignment(work)
    w = k + 4 * matrix
    do first = 1, n_k, lanes
      last = min(first + lanes - 1, n_k)
      call reduce_batch_complex(a(:, :, first:last), s(:, :, first:min(last, n_overlaps)), n, last - first + 1, &
        n_overlaps > 0, even, rows, work(k), work(k + matrix), work(k + 2 * matrix), work(k + 3 * matrix), &
        work(w), work(w + vector), work(w + 2 * vector), &
        diagonal(:, first:last), squares(:, first:last), bound(first:last))
    end do
  end subroutine reduce_complex

  subroutine reduce_batch_complex(a, s, n, n_k, general, even, rows, ar, ai, sr, si, d, e, vectors, &
      diagonal, squares, bound)
    integer, intent(in) :: n, n_k, even, rows
    logical, intent(in) :: general
    complex(kind=8), intent(in) :: a(n, n, n_k), s(n, n, *)
    double precision, intent(inout), dimension(lanes, rows, even + 2) :: ar, ai, sr, si
    double precision, intent(inout) :: d(lanes, n + 1), e(lanes, n + 1), vectors(lanes, n + 1, 8)
    double precision, intent(inout) :: diagonal(n, n_k), squares(n, n_k), bound(n_k)
    double precision :: trace(lanes)
    integer :: l

    call load_complex(a, n, n_k, even, rows, 0.0d0, ar, ai)
    trace = 1
    if (general) then
      call load_complex(s, n, n_k, even, rows, 1.0d0, sr, si)
      call cholesky_complex(even, rows, sr, si)
      call invert_complex(even, rows, sr, si, trace)
      trace = trace - (even - n)
      call congruence_complex(even, rows, sr, si, ar, ai)
    end if
    ar(:, n + 1, :) = 0
    ai(:, n + 1, :) = 0
    vectors = 0
    call householder_complex(n, rows, ar, ai, d, e, vectors(1, 1, 1), vectors(1, 1, 2), vectors(1, 1, 3), &
      vectors(1, 1, 4), vectors(1, 1, 5), vectors(1, 1, 6), vectors(1, 1, 7), vectors(1, 1, 8))
    do l = 1, n_k
      diagonal(:, l) = d(l, 1:n)
      squares(:, l) = e(l, 1:n)
      bound(l) = 1 / trace(l)
    end do
  end subroutine reduce_batch_complex

  ! The lower triangle, its columns in the second index. Matrices are padded to even order and the batch to `lanes`
  ! matrices with multiples of the identity.
  subroutine load_complex(a, n, n_k, even, rows, pad, ar, ai)
    integer, intent(in) :: n, n_k, even, rows
    complex(kind=8), intent(in) :: a(n, n, n_k)
    double precision, intent(in) :: pad
    double precision, intent(inout), dimension(lanes, rows, even + 2) :: ar, ai
    integer :: i, j, l

    do j = 1, n
      do l = 1, n_k
        do i = 1, j - 1
          ar(l, j, i) = real(a(i, j, l))
          ai(l, j, i) = aimag(a(i, j, l))
        end do
        ar(l, j, j) = real(a(j, j, l))
      end do
      do l = n_k + 1, lanes
        ar(l, j, 1:j - 1) = 0
        ai(l, j, 1:j - 1) = 0
        ar(l, j, j) = pad
      end do
      ai(:, j, j) = 0
    end do
    if (even > n) then
      ar(:, even, 1:n) = 0
      ai(:, even, 1:even) = 0
      ar(:, even, even) = pad
    end if
  end subroutine load_complex

  ! In the routines of the reduction matrices are blocks of two by two. One array holds two triangular matrices: of
  ! one the columns, in the lower triangle, and of the other the rows, row i in column i + 2, so that both
  ! operands of a sum over k are contiguous. Here and below tr, ti are the sums (1,1), (2,1), (1,2), (2,2) of a block.

  ! sum_k x_k conj(y_k) for two rows x and two rows y
  subroutine rows_times_rows_complex(m, xr, xi, x2r, x2i, yr, yi, y2r, y2i, tr, ti)
    integer, intent(in) :: m
    double precision, intent(in), dimension(lanes, m) :: xr, xi, x2r, x2i, yr, yi, y2r, y2i
    double precision, intent(inout), dimension(lanes, 4) :: tr, ti
    double precision :: r11, r21, r12, r22, i11, i21, i12, i22
    integer :: l, k

    if (m < 1) then
      tr = 0
      ti = 0
      return
    end if
    ! A loop that ends at its bottom has no branch around it, so that the compiler can vectorise the loop over l.
    !$omp simd private(k, r11, r21, r12, r22, i11, i21, i12, i22)
    do l = 1, lanes
      r11 = 0; r21 = 0; r12 = 0; r22 = 0
      i11 = 0; i21 = 0; i12 = 0; i22 = 0
      k = 1
      do
        r11 = r11 + xr(l, k) * yr(l, k) + xi(l, k) * yi(l, k)
        i11 = i11 + xi(l, k) * yr(l, k) - xr(l, k) * yi(l, k)
        r21 = r21 + x2r(l, k) * yr(l, k) + x2i(l, k) * yi(l, k)
        i21 = i21 + x2i(l, k) * yr(l, k) - x2r(l, k) * yi(l, k)
        r12 = r12 + xr(l, k) * y2r(l, k) + xi(l, k) * y2i(l, k)
        i12 = i12 + xi(l, k) * y2r(l, k) - xr(l, k) * y2i(l, k)
        r22 = r22 + x2r(l, k) * y2r(l, k) + x2i(l, k) * y2i(l, k)
        i22 = i22 + x2i(l, k) * y2r(l, k) - x2r(l, k) * y2i(l, k)
        k = k + 1
        if (k > m) exit
      end do
      tr(l, 1) = r11; tr(l, 2) = r21; tr(l, 3) = r12; tr(l, 4) = r22
      ti(l, 1) = i11; ti(l, 2) = i21; ti(l, 3) = i12; ti(l, 4) = i22
    end do
  end subroutine rows_times_rows_complex

  ! sum_k x_k y_k for two rows x and two columns y
  subroutine rows_times_columns_complex(m, xr, xi, x2r, x2i, yr, yi, y2r, y2i, tr, ti)
    integer, intent(in) :: m
    double precision, intent(in), dimension(lanes, m) :: xr, xi, x2r, x2i, yr, yi, y2r, y2i
    double precision, intent(inout), dimension(lanes, 4) :: tr, ti
    double precision :: r11, r21, r12, r22, i11, i21, i12, i22
    integer :: l, k

    !$omp simd private(k, r11, r21, r12, r22, i11, i21, i12, i22)
    do l = 1, lanes
      r11 = 0; r21 = 0; r12 = 0; r22 = 0
      i11 = 0; i21 = 0; i12 = 0; i22 = 0
      k = 1
      do
        r11 = r11 + xr(l, k) * yr(l, k) - xi(l, k) * yi(l, k)
        i11 = i11 + xi(l, k) * yr(l, k) + xr(l, k) * yi(l, k)
        r21 = r21 + x2r(l, k) * yr(l, k) - x2i(l, k) * yi(l, k)
        i21 = i21 + x2i(l, k) * yr(l, k) + x2r(l, k) * yi(l, k)
        r12 = r12 + xr(l, k) * y2r(l, k) - xi(l, k) * y2i(l, k)
        i12 = i12 + xi(l, k) * y2r(l, k) + xr(l, k) * y2i(l, k)
        r22 = r22 + x2r(l, k) * y2r(l, k) - x2i(l, k) * y2i(l, k)
        i22 = i22 + x2i(l, k) * y2r(l, k) + x2r(l, k) * y2i(l, k)
        k = k + 1
        if (k > m) exit
      end do
      tr(l, 1) = r11; tr(l, 2) = r21; tr(l, 3) = r12; tr(l, 4) = r22
      ti(l, 1) = i11; ti(l, 2) = i21; ti(l, 3) = i12; ti(l, 4) = i22
    end do
  end subroutine rows_times_columns_complex

  ! S to L, its columns and its rows; the diagonal holds 1 / L_ii.
  subroutine cholesky_complex(n, rows, sr, si)
    integer, intent(in) :: n, rows
    double precision, intent(inout), dimension(lanes, rows, n + 2) :: sr, si
    double precision :: tr(lanes, 4), ti(lanes, 4), p1, p2, cr, ci, xr, xi
    integer :: i, j, l

    do j = 1, n, 2
      do i = j, n, 2
        call rows_times_rows_complex(j - 1, sr(1, 1, i + 2), si(1, 1, i + 2), sr(1, 1, i + 3), si(1, 1, i + 3), &
          sr(1, 1, j + 2), si(1, 1, j + 2), sr(1, 1, j + 3), si(1, 1, j + 3), tr, ti)
        if (i == j) then
          !$omp simd private(p1, p2, xr, xi)
          do l = 1, lanes
            p1 = 1 / sqrt(sr(l, j, j) - tr(l, 1))
            xr = (sr(l, j + 1, j) - tr(l, 2)) * p1
            xi = (si(l, j + 1, j) - ti(l, 2)) * p1
            p2 = 1 / sqrt(sr(l, j + 1, j + 1) - tr(l, 4) - xr * xr - xi * xi)
            sr(l, j, j) = p1
            sr(l, j + 1, j) = xr
            si(l, j + 1, j) = xi
            sr(l, j + 1, j + 1) = p2
          end do
        else
          !$omp simd private(p1, p2, cr, ci, xr, xi)
          do l = 1, lanes
            p1 = sr(l, j, j)
            p2 = sr(l, j + 1, j + 1)
            cr = sr(l, j + 1, j)
            ci = si(l, j + 1, j)
            xr = (sr(l, i, j) - tr(l, 1)) * p1
            xi = (si(l, i, j) - ti(l, 1)) * p1
            sr(l, i, j) = xr
            si(l, i, j) = xi
            sr(l, j, i + 2) = xr
            si(l, j, i + 2) = xi
            tr(l, 3) = tr(l, 3) + xr * cr + xi * ci
            ti(l, 3) = ti(l, 3) + xi * cr - xr * ci
            xr = (sr(l, i, j + 1) - tr(l, 3)) * p2
            xi = (si(l, i, j + 1) - ti(l, 3)) * p2
            sr(l, i, j + 1) = xr
            si(l, i, j + 1) = xi
            sr(l, j + 1, i + 2) = xr
            si(l, j + 1, i + 2) = xi
            xr = (sr(l, i + 1, j) - tr(l, 2)) * p1
            xi = (si(l, i + 1, j) - ti(l, 2)) * p1
            sr(l, i + 1, j) = xr
            si(l, i + 1, j) = xi
            sr(l, j, i + 3) = xr
            si(l, j, i + 3) = xi
            tr(l, 4) = tr(l, 4) + xr * cr + xi * ci
            ti(l, 4) = ti(l, 4) + xi * cr - xr * ci
            xr = (sr(l, i + 1, j + 1) - tr(l, 4)) * p2
            xi = (si(l, i + 1, j + 1) - ti(l, 4)) * p2
            sr(l, i + 1, j + 1) = xr
            si(l, i + 1, j + 1) = xi
            sr(l, j + 1, i + 3) = xr
            si(l, j + 1, i + 3) = xi
          end do
        end if
      end do
    end do
  end subroutine cholesky_complex

  ! The rows of W = L^-1 in the place of those of L, and the trace of S^-1.
  subroutine invert_complex(n, rows, sr, si, trace)
    integer, intent(in) :: n, rows
    double precision, intent(inout), dimension(lanes, rows, n + 2) :: sr, si
    double precision, intent(inout) :: trace(lanes)
    double precision :: tr(lanes, 4), ti(lanes, 4), p1, p2, cr, ci, xr, xi, zr, zi, total
    integer :: i, j, l

    trace = 0
    do i = 1, n, 2
      !$omp simd private(p1, p2, xr, xi)
      do l = 1, lanes
        p1 = sr(l, i, i)
        p2 = sr(l, i + 1, i + 1)
        xr = -p1 * p2 * sr(l, i + 1, i)
        xi = -p1 * p2 * si(l, i + 1, i)
        sr(l, i, i + 2) = p1
        si(l, i, i + 2) = 0
        sr(l, i + 1, i + 2) = 0
        si(l, i + 1, i + 2) = 0
        sr(l, i, i + 3) = xr
        si(l, i, i + 3) = xi
        sr(l, i + 1, i + 3) = p2
        si(l, i + 1, i + 3) = 0
        ! The quotient is zero, or NaN where S has an infinite element, whose pivot would go unnoticed.
        trace(l) = trace(l) + p1 * p1 + p2 * p2 + xr * xr + xi * xi + 0 / (p1 * p2)
      end do
      do j = i - 2, 1, -2
        call rows_times_columns_complex(i - j, sr(1, j + 2, i + 2), si(1, j + 2, i + 2), &
          sr(1, j + 2, i + 3), si(1, j + 2, i + 3), sr(1, j + 2, j), si(1, j + 2, j), &
          sr(1, j + 2, j + 1), si(1, j + 2, j + 1), tr, ti)
        !$omp simd private(p1, p2, cr, ci, xr, xi, zr, zi, total)
        do l = 1, lanes
          p1 = -sr(l, j, j)
          p2 = -sr(l, j + 1, j + 1)
          cr = sr(l, j + 1, j)
          ci = si(l, j + 1, j)
          xr = tr(l, 3) * p2
          xi = ti(l, 3) * p2
          zr = (tr(l, 1) + xr * cr - xi * ci) * p1
          zi = (ti(l, 1) + xi * cr + xr * ci) * p1
          sr(l, j + 1, i + 2) = xr
          si(l, j + 1, i + 2) = xi
          sr(l, j, i + 2) = zr
          si(l, j, i + 2) = zi
          total = xr * xr + xi * xi + zr * zr + zi * zi
          xr = tr(l, 4) * p2
          xi = ti(l, 4) * p2
          zr = (tr(l, 2) + xr * cr - xi * ci) * p1
          zi = (ti(l, 2) + xi * cr + xr * ci) * p1
          sr(l, j + 1, i + 3) = xr
          si(l, j + 1, i + 3) = xi
          sr(l, j, i + 3) = zr
          si(l, j, i + 3) = zi
          trace(l) = trace(l) + (total + xr * xr + xi * xi + zr * zr + zi * zi)
        end do
      end do
    end do
  end subroutine invert_complex

  ! A to C = W A W^H, its columns.
  subroutine congruence_complex(n, rows, wr, wi, ar, ai)
    integer, intent(in) :: n, rows
    double precision, intent(in), dimension(lanes, rows, n + 2) :: wr, wi
    double precision, intent(inout), dimension(lanes, rows, n + 2) :: ar, ai
    double precision, dimension(lanes, 4) :: tr, ti, ur, ui
    integer :: i, j

    ! The columns of T are in the place of those of A, the rows of Y beside them.
    do j = 1, n, 2
      ar(:, j, j) = 0.5d0 * ar(:, j, j)
      ar(:, j + 1, j + 1) = 0.5d0 * ar(:, j + 1, j + 1)
      ar(:, j, j + 1) = 0
      ai(:, j, j + 1) = 0
      do i = j, n, 2
        call rows_times_columns_complex(i - j + 2, wr(1, j, i + 2), wi(1, j, i + 2), wr(1, j, i + 3), wi(1, j, i + 3), &
          ar(1, j, j), ai(1, j, j), ar(1, j, j + 1), ai(1, j, j + 1), tr, ti)
        ar(:, j, i + 2) = tr(:, 1)
        ai(:, j, i + 2) = ti(:, 1)
        ar(:, j, i + 3) = tr(:, 2)
        ai(:, j, i + 3) = ti(:, 2)
        ar(:, j + 1, i + 2) = tr(:, 3)
        ai(:, j + 1, i + 2) = ti(:, 3)
        ar(:, j + 1, i + 3) = tr(:, 4)
        ai(:, j + 1, i + 3) = ti(:, 4)
      end do
    end do
    do j = 1, n, 2
      do i = j, n, 2
        call rows_times_rows_complex(j + 1, ar(1, 1, i + 2), ai(1, 1, i + 2), ar(1, 1, i + 3), ai(1, 1, i + 3), &
          wr(1, 1, j + 2), wi(1, 1, j + 2), wr(1, 1, j + 3), wi(1, 1, j + 3), tr, ti)
        call rows_times_rows_complex(j + 1, wr(1, 1, i + 2), wi(1, 1, i + 2), wr(1, 1, i + 3), wi(1, 1, i + 3), &
          ar(1, 1, j + 2), ai(1, 1, j + 2), ar(1, 1, j + 3), ai(1, 1, j + 3), ur, ui)
        tr = tr + ur
        ti = ti + ui
        ar(:, i, j) = tr(:, 1)
        ai(:, i, j) = ti(:, 1)
        ar(:, i + 1, j) = tr(:, 2)
        ai(:, i + 1, j) = ti(:, 2)
        if (i > j) then
          ar(:, i, j + 1) = tr(:, 3)
          ai(:, i, j + 1) = ti(:, 3)
        end if
        ar(:, i + 1, j + 1) = tr(:, 4)
        ai(:, i + 1, j + 1) = ti(:, 4)
      end do
    end do
  end subroutine congruence_complex

  ! Row n + 1 of all arrays, and v and w at the start, are zero.
  subroutine householder_complex(n, rows, ar, ai, d, e, vr, vi, wr, wi, ur, ui, yr, yi)
    integer, intent(in) :: n, rows
    double precision, intent(inout), dimension(lanes, rows, n) :: ar, ai
    double precision, intent(inout), dimension(lanes, n + 1) :: d, e, vr, vi, wr, wi, ur, ui, yr, yi
    double precision :: below(lanes), tau(lanes), k(lanes), modulus, norm, xr, xi
    integer :: i, j, l

    do j = 1, n - 1
      below = 0
      d(:, j) = ar(:, j, j) - 2 * (vr(:, j) * wr(:, j) + vi(:, j) * wi(:, j))
      do i = j + 1, n
        do l = 1, lanes
          xr = ar(l, i, j) - vr(l, i) * wr(l, j) - vi(l, i) * wi(l, j) - wr(l, i) * vr(l, j) - wi(l, i) * vi(l, j)
          xi = ai(l, i, j) - vi(l, i) * wr(l, j) + vr(l, i) * wi(l, j) - wi(l, i) * vr(l, j) + wr(l, i) * vi(l, j)
          ur(l, i) = xr
          ui(l, i) = xi
          below(l) = below(l) + xr * xr + xi * xi
        end do
      end do
      e(:, j) = below
      do l = 1, lanes
        modulus = sqrt(ur(l, j + 1)**2 + ui(l, j + 1)**2)
        norm = sqrt(below(l))
        tau(l) = merge(1 / (norm * (norm + modulus)), 0.0d0, below(l) > negligible)
        xr = merge(ur(l, j + 1) / modulus, 1.0d0, modulus > 0)
        xi = merge(ui(l, j + 1) / modulus, 0.0d0, modulus > 0)
        ur(l, j + 1) = ur(l, j + 1) + norm * xr
        ui(l, j + 1) = ui(l, j + 1) + norm * xi
      end do
      yr(:, j + 1:n) = 0
      yi(:, j + 1:n) = 0
      do i = j + 1, n - 1, 2
        call update_and_multiply_complex(n, i, ar(1, 1, i), ai(1, 1, i), ar(1, 1, i + 1), ai(1, 1, i + 1), &
          vr, vi, wr, wi, ur, ui, yr, yi)
      end do
      if (mod(n - j, 2) == 1) then
        ar(:, n, n) = ar(:, n, n) - 2 * (vr(:, n) * wr(:, n) + vi(:, n) * wi(:, n))
        yr(:, n) = yr(:, n) + ar(:, n, n) * ur(:, n)
        yi(:, n) = yi(:, n) + ar(:, n, n) * ui(:, n)
      end if
      k = 0
      do i = j + 1, n
        do l = 1, lanes
          k(l) = k(l) + ur(l, i) * yr(l, i) + ui(l, i) * yi(l, i)
        end do
      end do
      k = 0.5d0 * tau * (tau * k)
      do i = j + 1, n
        do l = 1, lanes
          wr(l, i) = tau(l) * yr(l, i) - k(l) * ur(l, i)
          wi(l, i) = tau(l) * yi(l, i) - k(l) * ui(l, i)
          vr(l, i) = ur(l, i)
          vi(l, i) = ui(l, i)
        end do
      end do
    end do
    d(:, n) = ar(:, n, n) - 2 * (vr(:, n) * wr(:, n) + vi(:, n) * wi(:, n))
    e(:, n) = 0
  end subroutine householder_complex

  ! Columns c (a) and c + 1 (b): subtract v w^H + w v^H, and add what they contribute to y = A u.
  subroutine update_and_multiply_complex(n, c, ar, ai, br, bi, vr, vi, wr, wi, ur, ui, yr, yi)
    integer, intent(in) :: n, c
    double precision, intent(inout), dimension(lanes, n + 1) :: ar, ai, br, bi, yr, yi
    double precision, intent(in), dimension(lanes, n + 1) :: vr, vi, wr, wi, ur, ui
    double precision :: v1r, v1i, w1r, w1i, u1r, u1i, v2r, v2i, w2r, w2i, u2r, u2i
    double precision :: s1r, s1i, s2r, s2i, pr, pi, qr, qi
    integer :: i, l

    !$omp simd private(i, v1r, v1i, w1r, w1i, u1r, u1i, v2r, v2i, w2r, w2i, u2r, u2i, s1r, s1i, s2r, s2i, pr, pi, qr, qi)
    do l = 1, lanes
      v1r = vr(l, c); v1i = vi(l, c); w1r = wr(l, c); w1i = wi(l, c); u1r = ur(l, c); u1i = ui(l, c)
      v2r = vr(l, c + 1); v2i = vi(l, c + 1); w2r = wr(l, c + 1); w2i = wi(l, c + 1)
      u2r = ur(l, c + 1); u2i = ui(l, c + 1)
      pr = ar(l, c) - 2 * (v1r * w1r + v1i * w1i)
      qr = br(l, c + 1) - 2 * (v2r * w2r + v2i * w2i)
      ar(l, c) = pr
      br(l, c + 1) = qr
      s1r = pr * u1r
      s1i = pr * u1i
      s2r = qr * u2r
      s2i = qr * u2i
      pr = ar(l, c + 1) - v2r * w1r - v2i * w1i - w2r * v1r - w2i * v1i
      pi = ai(l, c + 1) - v2i * w1r + v2r * w1i - w2i * v1r + w2r * v1i
      ar(l, c + 1) = pr
      ai(l, c + 1) = pi
      s1r = s1r + pr * u2r + pi * u2i
      s1i = s1i + pr * u2i - pi * u2r
      s2r = s2r + pr * u1r - pi * u1i
      s2i = s2i + pi * u1r + pr * u1i
      i = c + 2 ! at most n + 1, where all that is added is zero
      do
        pr = ar(l, i) - vr(l, i) * w1r - vi(l, i) * w1i - wr(l, i) * v1r - wi(l, i) * v1i
        pi = ai(l, i) - vi(l, i) * w1r + vr(l, i) * w1i - wi(l, i) * v1r + wr(l, i) * v1i
        qr = br(l, i) - vr(l, i) * w2r - vi(l, i) * w2i - wr(l, i) * v2r - wi(l, i) * v2i
        qi = bi(l, i) - vi(l, i) * w2r + vr(l, i) * w2i - wi(l, i) * v2r + wr(l, i) * v2i
        ar(l, i) = pr
        ai(l, i) = pi
        br(l, i) = qr
        bi(l, i) = qi
        yr(l, i) = yr(l, i) + pr * u1r - pi * u1i + qr * u2r - qi * u2i
        yi(l, i) = yi(l, i) + pi * u1r + pr * u1i + qi * u2r + qr * u2i
        s1r = s1r + pr * ur(l, i) + pi * ui(l, i)
        s1i = s1i + pr * ui(l, i) - pi * ur(l, i)
        s2r = s2r + qr * ur(l, i) + qi * ui(l, i)
        s2i = s2i + qr * ui(l, i) - qi * ur(l, i)
        i = i + 1
        if (i > n) exit
      end do
      yr(l, c) = yr(l, c) + s1r
      yi(l, c) = yi(l, c) + s1i
      yr(l, c + 1) = yr(l, c + 1) + s2r
      yi(l, c + 1) = yi(l, c + 1) + s2i
    end do
  end subroutine update_and_multiply_complex

  ! ---------------------------------------------------------------- many small real problems

  subroutine reduce_real(a, s, n, n_k, n_overlaps, diagonal, squares, bound)
    integer, intent(in) :: n, n_k, n_overlaps
    double precision, intent(in) :: a(n, n, n_k), s(n, n, n_overlaps)
    double precision, intent(inout) :: diagonal(n, n_k), squares(n, n_k), bound(n_k)
    double precision, allocatable :: work(:)
    integer :: even, rows, matrix, vector, first, last, status, k, w

    even = n + mod(n, 2)
    rows = even + 1
    matrix = lanes * rows * (even + 2)
    vector = lanes * (n + 1)
    allocate(work(2 * matrix + 6 * vector + 8), stat=status)
    if (status /= 0) then
      diagonal = 0
      squares = 0
      bound = 0
      return
    end if
    k = 1 + misalignment(work)
    w = k + 2 * matrix
    do first = 1, n_k, lanes
      last = min(first + lanes - 1, n_k)
      call reduce_batch_real(a(:, :, first:last), s(:, :, first:min(last, n_overlaps)), n, last - first + 1, &
        n_overlaps > 0, even, rows, work(k), work(k + matrix), work(w), work(w + vector), work(w + 2 * vector), &
        diagonal(:, first:last), squares(:, first:last), bound(first:last))
    end do
  end subroutine reduce_real

  subroutine reduce_batch_real(a, s, n, n_k, general, even, rows, ar, sr, d, e, vectors, diagonal, squares, bound)
    integer, intent(in) :: n, n_k, even, rows
    logical, intent(in) :: general
    double precision, intent(in) :: a(n, n, n_k), s(n, n, *)
    double precision, intent(inout), dimension(lanes, rows, even + 2) :: ar, sr
    double precision, intent(inout) :: d(lanes, n + 1), e(lanes, n + 1), vectors(lanes, n + 1, 4)
    double precision, intent(inout) :: diagonal(n, n_k), squares(n, n_k), bound(n_k)
    double precision :: trace(lanes)
    integer :: l

    call load_real(a, n, n_k, even, rows, 0.0d0, ar)
    trace = 1
    if (general) then
      call load_real(s, n, n_k, even, rows, 1.0d0, sr)
      call cholesky_real(even, rows, sr)
      call invert_real(even, rows, sr, trace)
      trace = trace - (even - n)
      call congruence_real(even, rows, sr, ar)
    end if
    ar(:, n + 1, :) = 0
    vectors = 0
    call householder_real(n, rows, ar, d, e, vectors(1, 1, 1), vectors(1, 1, 2), vectors(1, 1, 3), vectors(1, 1, 4))
    do l = 1, n_k
      diagonal(:, l) = d(l, 1:n)
      squares(:, l) = e(l, 1:n)
      bound(l) = 1 / trace(l)
    end do
  end subroutine reduce_batch_real

  subroutine load_real(a, n, n_k, even, rows, pad, ar)
    integer, intent(in) :: n, n_k, even, rows
    double precision, intent(in) :: a(n, n, n_k)
    double precision, intent(in) :: pad
    double precision, intent(inout), dimension(lanes, rows, even + 2) :: ar
    integer :: i, j, l

    do j = 1, n
      do l = 1, n_k
        do i = 1, j
          ar(l, j, i) = a(i, j, l)
        end do
      end do
      do l = n_k + 1, lanes
        ar(l, j, 1:j - 1) = 0
        ar(l, j, j) = pad
      end do
    end do
    if (even > n) then
      ar(:, even, 1:n) = 0
      ar(:, even, even) = pad
    end if
  end subroutine load_real

  ! sum_k x_k y_k for two x and two y; m is even, and odd and even k are added apart to have more sums under way.
  subroutine products_real(m, x, x2, y, y2, t)
    integer, intent(in) :: m
    double precision, intent(in), dimension(lanes, m) :: x, x2, y, y2
    double precision, intent(inout) :: t(lanes, 4)
    double precision :: r11, r21, r12, r22, q11, q21, q12, q22
    integer :: l, k

    if (m < 1) then
      t = 0
      return
    end if
    !$omp simd private(k, r11, r21, r12, r22, q11, q21, q12, q22)
    do l = 1, lanes
      r11 = 0; r21 = 0; r12 = 0; r22 = 0
      q11 = 0; q21 = 0; q12 = 0; q22 = 0
      k = 1
      do
        r11 = r11 + x(l, k) * y(l, k)
        r21 = r21 + x2(l, k) * y(l, k)
        r12 = r12 + x(l, k) * y2(l, k)
        r22 = r22 + x2(l, k) * y2(l, k)
        q11 = q11 + x(l, k + 1) * y(l, k + 1)
        q21 = q21 + x2(l, k + 1) * y(l, k + 1)
        q12 = q12 + x(l, k + 1) * y2(l, k + 1)
        q22 = q22 + x2(l, k + 1) * y2(l, k + 1)
        k = k + 2
        if (k > m) exit
      end do
      t(l, 1) = r11 + q11
      t(l, 2) = r21 + q21
      t(l, 3) = r12 + q12
      t(l, 4) = r22 + q22
    end do
  end subroutine products_real

  subroutine cholesky_real(n, rows, s)
    integer, intent(in) :: n, rows
    double precision, intent(inout) :: s(lanes, rows, n + 2)
    double precision :: t(lanes, 4), p1, p2, c, x
    integer :: i, j, l

    do j = 1, n, 2
      do i = j, n, 2
        call products_real(j - 1, s(1, 1, i + 2), s(1, 1, i + 3), s(1, 1, j + 2), s(1, 1, j + 3), t)
        if (i == j) then
          !$omp simd private(p1, p2, x)
          do l = 1, lanes
            p1 = 1 / sqrt(s(l, j, j) - t(l, 1))
            x = (s(l, j + 1, j) - t(l, 2)) * p1
            p2 = 1 / sqrt(s(l, j + 1, j + 1) - t(l, 4) - x * x)
            s(l, j, j) = p1
            s(l, j + 1, j) = x
            s(l, j + 1, j + 1) = p2
          end do
        else
          !$omp simd private(p1, p2, c, x)
          do l = 1, lanes
            p1 = s(l, j, j)
            p2 = s(l, j + 1, j + 1)
            c = s(l, j + 1, j)
            x = (s(l, i, j) - t(l, 1)) * p1
            s(l, i, j) = x
            s(l, j, i + 2) = x
            x = (s(l, i, j + 1) - t(l, 3) - x * c) * p2
            s(l, i, j + 1) = x
            s(l, j + 1, i + 2) = x
            x = (s(l, i + 1, j) - t(l, 2)) * p1
            s(l, i + 1, j) = x
            s(l, j, i + 3) = x
            x = (s(l, i + 1, j + 1) - t(l, 4) - x * c) * p2
            s(l, i + 1, j + 1) = x
            s(l, j + 1, i + 3) = x
          end do
        end if
      end do
    end do
  end subroutine cholesky_real

  subroutine invert_real(n, rows, s, trace)
    integer, intent(in) :: n, rows
    double precision, intent(inout) :: s(lanes, rows, n + 2)
    double precision, intent(inout) :: trace(lanes)
    double precision :: t(lanes, 4), p1, p2, c, x, z, total
    integer :: i, j, l

    trace = 0
    do i = 1, n, 2
      !$omp simd private(p1, p2, x)
      do l = 1, lanes
        p1 = s(l, i, i)
        p2 = s(l, i + 1, i + 1)
        x = -p1 * p2 * s(l, i + 1, i)
        s(l, i, i + 2) = p1
        s(l, i + 1, i + 2) = 0
        s(l, i, i + 3) = x
        s(l, i + 1, i + 3) = p2
        trace(l) = trace(l) + p1 * p1 + p2 * p2 + x * x + 0 / (p1 * p2)
      end do
      do j = i - 2, 1, -2
        call products_real(i - j, s(1, j + 2, i + 2), s(1, j + 2, i + 3), s(1, j + 2, j), s(1, j + 2, j + 1), t)
        !$omp simd private(p1, p2, c, x, z, total)
        do l = 1, lanes
          p1 = -s(l, j, j)
          p2 = -s(l, j + 1, j + 1)
          c = s(l, j + 1, j)
          x = t(l, 3) * p2
          z = (t(l, 1) + x * c) * p1
          s(l, j + 1, i + 2) = x
          s(l, j, i + 2) = z
          total = x * x + z * z
          x = t(l, 4) * p2
          z = (t(l, 2) + x * c) * p1
          s(l, j + 1, i + 3) = x
          s(l, j, i + 3) = z
          trace(l) = trace(l) + (total + x * x + z * z)
        end do
      end do
    end do
  end subroutine invert_real

  subroutine congruence_real(n, rows, w, a)
    integer, intent(in) :: n, rows
    double precision, intent(in) :: w(lanes, rows, n + 2)
    double precision, intent(inout) :: a(lanes, rows, n + 2)
    double precision, dimension(lanes, 4) :: t, u
    integer :: i, j

    do j = 1, n, 2
      a(:, j, j) = 0.5d0 * a(:, j, j)
      a(:, j + 1, j + 1) = 0.5d0 * a(:, j + 1, j + 1)
      a(:, j, j + 1) = 0
      do i = j, n, 2
        call products_real(i - j + 2, w(1, j, i + 2), w(1, j, i + 3), a(1, j, j), a(1, j, j + 1), t)
        a(:, j, i + 2) = t(:, 1)
        a(:, j, i + 3) = t(:, 2)
        a(:, j + 1, i + 2) = t(:, 3)
        a(:, j + 1, i + 3) = t(:, 4)
      end do
    end do
    do j = 1, n, 2
      do i = j, n, 2
        call products_real(j + 1, a(1, 1, i + 2), a(1, 1, i + 3), w(1, 1, j + 2), w(1, 1, j + 3), t)
        call products_real(j + 1, w(1, 1, i + 2), w(1, 1, i + 3), a(1, 1, j + 2), a(1, 1, j + 3), u)
        t = t + u
        a(:, i, j) = t(:, 1)
        a(:, i + 1, j) = t(:, 2)
        if (i > j) a(:, i, j + 1) = t(:, 3)
        a(:, i + 1, j + 1) = t(:, 4)
      end do
    end do
  end subroutine congruence_real

  subroutine householder_real(n, rows, a, d, e, v, w, u, y)
    integer, intent(in) :: n, rows
    double precision, intent(inout) :: a(lanes, rows, n)
    double precision, intent(inout), dimension(lanes, n + 1) :: d, e, v, w, u, y
    double precision :: below(lanes), tau(lanes), k(lanes), norm, x
    integer :: i, j, l

    do j = 1, n - 1
      below = 0
      d(:, j) = a(:, j, j) - 2 * v(:, j) * w(:, j)
      do i = j + 1, n
        do l = 1, lanes
          x = a(l, i, j) - v(l, i) * w(l, j) - w(l, i) * v(l, j)
          u(l, i) = x
          below(l) = below(l) + x * x
        end do
      end do
      e(:, j) = below
      do l = 1, lanes
        x = u(l, j + 1)
        norm = sqrt(below(l))
        tau(l) = merge(1 / (norm * (norm + abs(x))), 0.0d0, below(l) > negligible)
        u(l, j + 1) = x + sign(norm, x)
      end do
      y(:, j + 1:n) = 0
      do i = j + 1, n - 1, 2
        call update_and_multiply_real(n, i, a(1, 1, i), a(1, 1, i + 1), v, w, u, y)
      end do
      if (mod(n - j, 2) == 1) then
        a(:, n, n) = a(:, n, n) - 2 * v(:, n) * w(:, n)
        y(:, n) = y(:, n) + a(:, n, n) * u(:, n)
      end if
      k = 0
      do i = j + 1, n
        do l = 1, lanes
          k(l) = k(l) + u(l, i) * y(l, i)
        end do
      end do
      k = 0.5d0 * tau * (tau * k)
      do i = j + 1, n
        do l = 1, lanes
          w(l, i) = tau(l) * y(l, i) - k(l) * u(l, i)
          v(l, i) = u(l, i)
        end do
      end do
    end do
    d(:, n) = a(:, n, n) - 2 * v(:, n) * w(:, n)
    e(:, n) = 0
  end subroutine householder_real

  subroutine update_and_multiply_real(n, c, a, b, v, w, u, y)
    integer, intent(in) :: n, c
    double precision, intent(inout), dimension(lanes, n + 1) :: a, b, y
    double precision, intent(in), dimension(lanes, n + 1) :: v, w, u
    double precision :: v1, w1, u1, v2, w2, u2, s1, s2, p, q
    integer :: i, l

    !$omp simd private(i, v1, w1, u1, v2, w2, u2, s1, s2, p, q)
    do l = 1, lanes
      v1 = v(l, c); w1 = w(l, c); u1 = u(l, c)
      v2 = v(l, c + 1); w2 = w(l, c + 1); u2 = u(l, c + 1)
      p = a(l, c) - 2 * v1 * w1
      q = b(l, c + 1) - 2 * v2 * w2
      a(l, c) = p
      b(l, c + 1) = q
      s1 = p * u1
      s2 = q * u2
      p = a(l, c + 1) - v2 * w1 - w2 * v1
      a(l, c + 1) = p
      s1 = s1 + p * u2
      s2 = s2 + p * u1
      i = c + 2
      do
        p = a(l, i) - v(l, i) * w1 - w(l, i) * v1
        q = b(l, i) - v(l, i) * w2 - w(l, i) * v2
        a(l, i) = p
        b(l, i) = q
        y(l, i) = y(l, i) + p * u1 + q * u2
        s1 = s1 + p * u(l, i)
        s2 = s2 + q * u(l, i)
        i = i + 1
        if (i > n) exit
      end do
      y(l, c) = y(l, c) + s1
      y(l, c + 1) = y(l, c + 1) + s2
    end do
  end subroutine update_and_multiply_real

  ! ---------------------------------------------------------------- large problems

  ! One problem, real (parts = 1) or complex (2), to a tridiagonal matrix. The lower triangles of a(:, i, j) and
  ! s(:, i, j) count; no overlaps: A c = e c. dgemm is the address of a BLAS routine with 32-bit integers.
  !
  ! probe_norm: the largest |L^-1 p|^2 of the probes p, or zero where S is not positive definite.
  subroutine solve_large(a, s, probes, n, n_overlaps, n_probes, parts, planes, rows, dgemm, work_a, work_s, &
      diagonal, squares, probe_norm)
    integer, intent(in) :: n, n_overlaps, n_probes, parts, planes, rows
    integer(kind=8), intent(in) :: dgemm
    double precision, intent(in) :: a(parts, n, n), s(parts, n, n, n_overlaps), probes(parts, n, n_probes)
    double precision, intent(inout) :: work_a(rows, n_probes + n, planes), work_s(rows, n, planes, n_overlaps)
    double precision, intent(inout) :: diagonal(n), squares(n), probe_norm(1)
    double precision, allocatable :: vectors(:, :)
    procedure(blas_product), pointer :: gemm
    integer :: p, status

    diagonal = huge(1.0d0) ! no eigenvalues follow from this
    squares = 0
    probe_norm = 0
    allocate(vectors(rows, 8), stat=status)
    if (status /= 0) return
    call load_large(a, n, n, parts, .true., work_a(:, n_probes + 1:, :))
    if (n_overlaps > 0) then
      call load_large(s, n, n, parts, .true., work_s(:, :, :, 1))
      call load_large(probes, n, n_probes, parts, .false., work_a(:, :n_probes, :))
      call c_f_procpointer(transfer(dgemm, c_null_funptr), gemm)
      call reduce_large(gemm, n, n_probes, rows, planes, work_s, work_a, status)
      if (status /= 0) return
      do p = 1, n_probes
        probe_norm = max(probe_norm, sum(work_a(1:n, p, 1:parts)**2))
      end do
    end if
    vectors = 0
    if (parts == 1) then
      call householder_large_real(n, rows, work_a(:, n_probes + 1:, 1), diagonal, squares, vectors(1, 1), &
        vectors(1, 2), vectors(1, 3), vectors(1, 4))
    else
      call householder_large_complex(n, rows, work_a(:, n_probes + 1:, 1), work_a(:, n_probes + 1:, 2), diagonal, &
        squares, vectors(1, 1), vectors(1, 2), vectors(1, 3), vectors(1, 4), vectors(1, 5), vectors(1, 6), &
        vectors(1, 7), vectors(1, 8))
    end if
  end subroutine solve_large

  ! Planes of a matrix, of its lower triangle only if so wanted: as sums if there are three, else as parts.
  subroutine load_large(z, n, columns, parts, lower, x)
    integer, intent(in) :: n, columns, parts
    logical, intent(in) :: lower
    double precision, intent(in) :: z(parts * n, columns)
    double precision, intent(inout) :: x(:, :, :)
    double precision :: re, im
    integer :: i, j, first

    do j = 1, columns
      first = merge(j, 1, lower)
      if (parts == 1) then
        x(first:n, j, 1) = z(first:, j)
      else if (size(x, 3) == 2) then
        do i = first, n
          x(i, j, 1) = z(2 * i - 1, j)
          x(i, j, 2) = z(2 * i, j)
        end do
      else
        !$omp simd private(re, im)
        do i = first, n
          re = z(2 * i - 1, j)
          im = z(2 * i, j)
          x(i, j, 1) = re
          x(i, j, 2) = 0
          x(i, j, 3) = re + im
        end do
      end if
    end do
  end subroutine load_large

  ! A to C = L^-1 A L^-H, in parts, and the q columns before A to L^-1 times them; both come as sums. S is lost.
  !
  ! Complex matrices are multiplied by three real products of planes:
  !   X Y = (X1 Y1 - X2 Y2) + i (X3 Y3 - X1 Y1 - X2 Y2),     X1 = Re X, X2 = Im X, X3 = X1 + X2.
  ! A matrix is kept as such `parts` where it is multiplied, and as `sums` of the three products where they are added
  ! up. Real matrices have one plane, which is both.
  !
  ! One block of columns after the other, block b with the rows r below it:
  !   W = L_bb^-1, L_rb = S_rb W^H, S_rr = S_rr - L_rb L_rb^H                       (Cholesky)
  !   A_bb = W A_bb W^H, H = L_rb A_bb / 2, P = A_rb W^H - H, A_rb = P - H
  !   A_rr = A_rr - L_rb P^H - P L_rb^H, and with the columns c before the block A_bc = W A_bc, A_rc = A_rc - L_rb A_bc
  subroutine reduce_large(gemm, n, q, rows, planes, s, a, status)
    procedure(blas_product) :: gemm
    integer, intent(in) :: n, q, rows, planes
    double precision, intent(inout), target :: s(rows, n, planes), a(rows, q + n, planes)
    integer, intent(inout) :: status ! not zero where S is not positive definite, or memory is short
    double precision, allocatable, dimension(:, :, :), target :: left, right, t, u, w, v, x, y, r
    integer :: width, b, j, k, f, g, c, e, p

    width = min(48, 8 * ((n + 240) / 160)) ! measured: as narrow as pays, since work in the block is slow
    allocate(left(rows, 2 * width, planes), right(rows, 2 * width, planes), t(rows, width, planes), &
      u(rows, width, planes), w(width, width, planes), v(width, width, planes), x(width, width, planes), &
      y(width, width, planes), r(width, q + n, planes), stat=status)
    if (status /= 0) return
    do j = 1, n, width
      k = min(j + width - 1, n)
      b = k - j + 1
      f = q + j
      g = q + k
      call to_parts(s(j:k, j:k, :), x(:b, :b, :))
      call invert_factor(x(:b, :b, :), w(:b, :b, :), status)
      if (status /= 0) return
      call conjugate(w(:b, :b, :), v(:b, :b, :))
      call to_parts(a(j:k, f:g, :), x(:b, :b, :))
      call complete(x(:b, :b, :))
      call multiply(gemm, 'N', 1d0, w(:b, :b, :), x(:b, :b, :), 0d0, y(:b, :b, :))
      call to_parts(y(:b, :b, :), x(:b, :b, :))
      call multiply(gemm, 'T', 1d0, x(:b, :b, :), v(:b, :b, :), 0d0, y(:b, :b, :))
      call to_parts(y(:b, :b, :), a(j:k, f:g, :))

      call to_parts(s(k + 1:n, j:k, :), t(k + 1:n, :b, :))
      call multiply(gemm, 'T', 1d0, t(k + 1:n, :b, :), v(:b, :b, :), 0d0, u(k + 1:n, :b, :))
      call to_parts(u(k + 1:n, :b, :), left(k + 1:n, :b, :)) ! L
      call to_parts(a(k + 1:n, f:g, :), t(k + 1:n, :b, :))
      call multiply(gemm, 'T', 1d0, t(k + 1:n, :b, :), v(:b, :b, :), 0d0, u(k + 1:n, :b, :))
      call to_parts(u(k + 1:n, :b, :), left(k + 1:n, b + 1:2 * b, :))
      call multiply(gemm, 'N', 0.5d0, left(k + 1:n, :b, :), a(j:k, f:g, :), 0d0, u(k + 1:n, :b, :))
      call to_parts(u(k + 1:n, :b, :), t(k + 1:n, :b, :)) ! H
      do p = 1, planes
        do c = 1, b
          left(k + 1:n, b + c, p) = left(k + 1:n, b + c, p) - t(k + 1:n, c, p) ! P
          a(k + 1:n, f + c - 1, p) = merge(left(k + 1:n, b + c, p) - t(k + 1:n, c, p), 0.0d0, p /= 2)
        end do
      end do
      call conjugate(left(k + 1:n, :b, :), right(k + 1:n, b + 1:2 * b, :))
      call conjugate(left(k + 1:n, b + 1:2 * b, :), right(k + 1:n, :b, :))
      do p = 1, planes
        do c = k + 1, n, width
          e = min(c + width - 1, n)
          call multiply(gemm, 'T', -1d0, left(c:n, :b, p:p), right(c:e, b + 1:2 * b, p:p), 1d0, s(c:n, c:e, p:p))
          call multiply(gemm, 'T', -1d0, left(c:n, :2 * b, p:p), right(c:e, :2 * b, p:p), 1d0, a(c:n, q + c:q + e, p:p))
        end do
      end do

      call to_parts(a(j:k, :f - 1, :), r(:b, :f - 1, :))
      call multiply(gemm, 'N', 1d0, w(:b, :b, :), r(:b, :f - 1, :), 0d0, a(j:k, :f - 1, :))
      call to_parts(a(j:k, :f - 1, :), r(:b, :f - 1, :))
      call multiply(gemm, 'N', -1d0, left(k + 1:n, :b, :), r(:b, :f - 1, :), 1d0, a(k + 1:n, :f - 1, :))
      a(j:k, :f - 1, :) = r(:b, :f - 1, :)
    end do
  end subroutine reduce_large

  ! Z = beta Z + alpha X Y, or with the transposed Y ('T'), plane by plane.
  subroutine multiply(gemm, form, alpha, x, y, beta, z)
    procedure(blas_product) :: gemm
    character, intent(in) :: form
    double precision, intent(in) :: alpha, beta
    double precision, intent(in), target :: x(:, :, :), y(:, :, :)
    double precision, intent(inout), target :: z(:, :, :)
    integer :: p

    if (size(z) == 0) return
    do p = 1, size(z, 3)
      call gemm('N', form, size(z, 1), size(z, 2), size(x, 2), alpha, c_loc(x(1, 1, p)), column_distance(x), &
        c_loc(y(1, 1, p)), column_distance(y), beta, c_loc(z(1, 1, p)), column_distance(z))
    end do
  end subroutine multiply

  ! From one column to the next, in elements.
  integer function column_distance(x)
    double precision, intent(in), target :: x(:, :, :)

    column_distance = max(1, size(x, 1))
    if (size(x, 2) > 1) column_distance = int(transfer(c_loc(x(1, 2, 1)), 0_c_intptr_t) &
      - transfer(c_loc(x(1, 1, 1)), 0_c_intptr_t)) / 8
  end function column_distance

  subroutine to_parts(sums, x)
    double precision, intent(in) :: sums(:, :, :)
    double precision, intent(inout) :: x(:, :, :)
    double precision :: re, im
    integer :: i, j

    do j = 1, size(x, 2)
      if (size(x, 3) == 1) then
        x(:, j, 1) = sums(:, j, 1)
        cycle
      end if
      !$omp simd private(re, im)
      do i = 1, size(x, 1)
        re = sums(i, j, 1) - sums(i, j, 2)
        im = sums(i, j, 3) - sums(i, j, 1) - sums(i, j, 2)
        x(i, j, 1) = re
        x(i, j, 2) = im
        x(i, j, 3) = re + im
      end do
    end do
  end subroutine to_parts

  subroutine conjugate(x, y)
    double precision, intent(in) :: x(:, :, :)
    double precision, intent(inout) :: y(:, :, :)
    integer :: i, j

    do j = 1, size(x, 2)
      y(:, j, 1) = x(:, j, 1)
      if (size(x, 3) == 1) cycle
      !$omp simd
      do i = 1, size(x, 1)
        y(i, j, 2) = -x(i, j, 2)
        y(i, j, 3) = x(i, j, 1) - x(i, j, 2)
      end do
    end do
  end subroutine conjugate

  ! The upper triangle of a Hermitian matrix, from the lower one.
  subroutine complete(x)
    double precision, intent(inout) :: x(:, :, :)
    integer :: i, j

    do j = 1, size(x, 2)
      do i = 1, j - 1
        x(i, j, 1) = x(j, i, 1)
        if (size(x, 3) == 1) cycle
        x(i, j, 2) = -x(j, i, 2)
        x(i, j, 3) = x(j, i, 1) - x(j, i, 2)
      end do
      if (size(x, 3) == 1) cycle
      x(j, j, 2) = 0
      x(j, j, 3) = x(j, j, 1)
    end do
  end subroutine complete

  ! W = L^-1 of a small S = L L^H.
  subroutine invert_factor(s, w, status)
    double precision, intent(in) :: s(:, :, :)
    double precision, intent(inout) :: w(:, :, :)
    integer, intent(inout) :: status
    double precision, dimension(size(s, 1), size(s, 1)) :: sr, si, wr, wi
    double precision :: f, g
    integer :: n, i, j, c

    n = size(s, 1)
    sr = s(:, :, 1)
    si = 0
    if (size(s, 3) > 1) si = s(:, :, 2)
    wr = 0
    wi = 0
    status = 1
    do j = 1, n
      f = sr(j, j)
      if (.not. (f > 0 .and. f <= huge(f))) return
      f = 1 / sqrt(f)
      sr(j + 1:n, j) = f * sr(j + 1:n, j)
      si(j + 1:n, j) = f * si(j + 1:n, j)
      wr(j, 1:j - 1) = f * wr(j, 1:j - 1)
      wi(j, 1:j - 1) = f * wi(j, 1:j - 1)
      wr(j, j) = f
      do c = j + 1, n
        f = sr(c, j)
        g = si(c, j)
        !$omp simd
        do i = c, n
          sr(i, c) = sr(i, c) - sr(i, j) * f - si(i, j) * g
          si(i, c) = si(i, c) - si(i, j) * f + sr(i, j) * g
        end do
      end do
      do c = 1, j
        f = wr(j, c)
        g = wi(j, c)
        !$omp simd
        do i = j + 1, n
          wr(i, c) = wr(i, c) - sr(i, j) * f + si(i, j) * g
          wi(i, c) = wi(i, c) - si(i, j) * f - sr(i, j) * g
        end do
      end do
    end do
    status = 0
    w(:, :, 1) = wr
    if (size(w, 3) == 1) return
    w(:, :, 2) = wi
    w(:, :, 3) = wr + wi
  end subroutine invert_factor

  ! Rows of v and w at the start are zero.
  subroutine householder_large_complex(n, rows, ar, ai, d, e, vr, vi, wr, wi, ur, ui, yr, yi)
    integer, intent(in) :: n, rows
    double precision, intent(inout), dimension(rows, n) :: ar, ai
    double precision, intent(inout), dimension(rows) :: vr, vi, wr, wi, ur, ui, yr, yi
    double precision, intent(inout), dimension(n) :: d, e
    double precision :: below, tau, k, modulus, norm, xr, xi
    integer :: i, j

    do j = 1, n - 1
      below = 0
      d(j) = ar(j, j) - 2 * (vr(j) * wr(j) + vi(j) * wi(j))
      !$omp simd reduction(+:below) private(xr, xi)
      do i = j + 1, n
        xr = ar(i, j) - vr(i) * wr(j) - vi(i) * wi(j) - wr(i) * vr(j) - wi(i) * vi(j)
        xi = ai(i, j) - vi(i) * wr(j) + vr(i) * wi(j) - wi(i) * vr(j) + wr(i) * vi(j)
        ur(i) = xr
        ui(i) = xi
        below = below + xr * xr + xi * xi
      end do
      e(j) = below
      modulus = sqrt(ur(j + 1)**2 + ui(j + 1)**2)
      norm = sqrt(below)
      tau = merge(1 / (norm * (norm + modulus)), 0.0d0, below > negligible)
      xr = merge(ur(j + 1) / modulus, 1.0d0, modulus > 0)
      xi = merge(ui(j + 1) / modulus, 0.0d0, modulus > 0)
      ur(j + 1) = ur(j + 1) + norm * xr
      ui(j + 1) = ui(j + 1) + norm * xi
      yr(j + 1:n) = 0
      yi(j + 1:n) = 0
      do i = j + 1, n - 1, 2
        call update_and_multiply_large_complex(n, i, ar(1, i), ai(1, i), ar(1, i + 1), ai(1, i + 1), &
          vr, vi, wr, wi, ur, ui, yr, yi)
      end do
      if (mod(n - j, 2) == 1) then
        ar(n, n) = ar(n, n) - 2 * (vr(n) * wr(n) + vi(n) * wi(n))
        yr(n) = yr(n) + ar(n, n) * ur(n)
        yi(n) = yi(n) + ar(n, n) * ui(n)
      end if
      k = 0
      !$omp simd reduction(+:k)
      do i = j + 1, n
        k = k + ur(i) * yr(i) + ui(i) * yi(i)
      end do
      k = 0.5d0 * tau * (tau * k)
      do i = j + 1, n
        wr(i) = tau * yr(i) - k * ur(i)
        wi(i) = tau * yi(i) - k * ui(i)
        vr(i) = ur(i)
        vi(i) = ui(i)
      end do
    end do
    d(n) = ar(n, n) - 2 * (vr(n) * wr(n) + vi(n) * wi(n))
    e(n) = 0
  end subroutine householder_large_complex

  subroutine update_and_multiply_large_complex(n, c, ar, ai, br, bi, vr, vi, wr, wi, ur, ui, yr, yi)
    integer, intent(in) :: n, c
    double precision, intent(inout), dimension(n) :: ar, ai, br, bi, yr, yi
    double precision, intent(in), dimension(n) :: vr, vi, wr, wi, ur, ui
    double precision :: v1r, v1i, w1r, w1i, u1r, u1i, v2r, v2i, w2r, w2i, u2r, u2i
    double precision :: s1r, s1i, s2r, s2i, pr, pi, qr, qi
    integer :: i

    v1r = vr(c); v1i = vi(c); w1r = wr(c); w1i = wi(c); u1r = ur(c); u1i = ui(c)
    v2r = vr(c + 1); v2i = vi(c + 1); w2r = wr(c + 1); w2i = wi(c + 1); u2r = ur(c + 1); u2i = ui(c + 1)
    pr = ar(c) - 2 * (v1r * w1r + v1i * w1i)
    qr = br(c + 1) - 2 * (v2r * w2r + v2i * w2i)
    ar(c) = pr
    br(c + 1) = qr
    s1r = pr * u1r
    s1i = pr * u1i
    s2r = qr * u2r
    s2i = qr * u2i
    pr = ar(c + 1) - v2r * w1r - v2i * w1i - w2r * v1r - w2i * v1i
    pi = ai(c + 1) - v2i * w1r + v2r * w1i - w2i * v1r + w2r * v1i
    ar(c + 1) = pr
    ai(c + 1) = pi
    s1r = s1r + pr * u2r + pi * u2i
    s1i = s1i + pr * u2i - pi * u2r
    s2r = s2r + pr * u1r - pi * u1i
    s2i = s2i + pi * u1r + pr * u1i
    !$omp simd reduction(+:s1r, s1i, s2r, s2i) private(pr, pi, qr, qi)
    do i = c + 2, n
      pr = ar(i) - vr(i) * w1r - vi(i) * w1i - wr(i) * v1r - wi(i) * v1i
      pi = ai(i) - vi(i) * w1r + vr(i) * w1i - wi(i) * v1r + wr(i) * v1i
      qr = br(i) - vr(i) * w2r - vi(i) * w2i - wr(i) * v2r - wi(i) * v2i
      qi = bi(i) - vi(i) * w2r + vr(i) * w2i - wi(i) * v2r + wr(i) * v2i
      ar(i) = pr
      ai(i) = pi
      br(i) = qr
      bi(i) = qi
      yr(i) = yr(i) + pr * u1r - pi * u1i + qr * u2r - qi * u2i
      yi(i) = yi(i) + pi * u1r + pr * u1i + qi * u2r + qr * u2i
      s1r = s1r + pr * ur(i) + pi * ui(i)
      s1i = s1i + pr * ui(i) - pi * ur(i)
      s2r = s2r + qr * ur(i) + qi * ui(i)
      s2i = s2i + qr * ui(i) - qi * ur(i)
    end do
    yr(c) = yr(c) + s1r
    yi(c) = yi(c) + s1i
    yr(c + 1) = yr(c + 1) + s2r
    yi(c + 1) = yi(c + 1) + s2i
  end subroutine update_and_multiply_large_complex

  subroutine householder_large_real(n, rows, a, d, e, v, w, u, y)
    integer, intent(in) :: n, rows
    double precision, intent(inout) :: a(rows, n)
    double precision, intent(inout), dimension(rows) :: v, w, u, y
    double precision, intent(inout), dimension(n) :: d, e
    double precision :: below, tau, k, norm, x
    integer :: i, j

    do j = 1, n - 1
      below = 0
      d(j) = a(j, j) - 2 * v(j) * w(j)
      !$omp simd reduction(+:below) private(x)
      do i = j + 1, n
        x = a(i, j) - v(i) * w(j) - w(i) * v(j)
        u(i) = x
        below = below + x * x
      end do
      e(j) = below
      x = u(j + 1)
      norm = sqrt(below)
      tau = merge(1 / (norm * (norm + abs(x))), 0.0d0, below > negligible)
      u(j + 1) = x + sign(norm, x)
      y(j + 1:n) = 0
      i = j + 1
      do while (i < n - 2)
        call update_and_multiply_large_real(n, i, a(1, i), a(1, i + 1), a(1, i + 2), a(1, i + 3), v, w, u, y)
        i = i + 4
      end do
      call update_and_multiply_last_real(n, rows, i, a, v, w, u, y)
      k = 0
      !$omp simd reduction(+:k)
      do i = j + 1, n
        k = k + u(i) * y(i)
      end do
      k = 0.5d0 * tau * (tau * k)
      do i = j + 1, n
        w(i) = tau * y(i) - k * u(i)
        v(i) = u(i)
      end do
    end do
    d(n) = a(n, n) - 2 * v(n) * w(n)
    e(n) = 0
  end subroutine householder_large_real

  ! The same for four columns, of which the rows below them are alike.
  subroutine update_and_multiply_large_real(n, m, a, b, c, d, v, w, u, y)
    integer, intent(in) :: n, m
    double precision, intent(inout), dimension(n) :: a, b, c, d, y
    double precision, intent(in), dimension(n) :: v, w, u
    double precision :: v1, w1, u1, v2, w2, u2, v3, w3, u3, v4, w4, u4, s1, s2, s3, s4, p, q, r, t
    integer :: i

    v1 = v(m); w1 = w(m); u1 = u(m)
    v2 = v(m + 1); w2 = w(m + 1); u2 = u(m + 1)
    v3 = v(m + 2); w3 = w(m + 2); u3 = u(m + 2)
    v4 = v(m + 3); w4 = w(m + 3); u4 = u(m + 3)
    do i = m, m + 3
      a(i) = a(i) - v(i) * w1 - w(i) * v1
      if (i > m) b(i) = b(i) - v(i) * w2 - w(i) * v2
      if (i > m + 1) c(i) = c(i) - v(i) * w3 - w(i) * v3
    end do
    d(m + 3) = d(m + 3) - 2 * v4 * w4
    s1 = a(m) * u1 + a(m + 1) * u2 + a(m + 2) * u3 + a(m + 3) * u4
    s2 = a(m + 1) * u1 + b(m + 1) * u2 + b(m + 2) * u3 + b(m + 3) * u4
    s3 = a(m + 2) * u1 + b(m + 2) * u2 + c(m + 2) * u3 + c(m + 3) * u4
    s4 = a(m + 3) * u1 + b(m + 3) * u2 + c(m + 3) * u3 + d(m + 3) * u4
    !$omp simd reduction(+:s1, s2, s3, s4) private(p, q, r, t)
    do i = m + 4, n
      p = a(i) - v(i) * w1 - w(i) * v1
      q = b(i) - v(i) * w2 - w(i) * v2
      r = c(i) - v(i) * w3 - w(i) * v3
      t = d(i) - v(i) * w4 - w(i) * v4
      a(i) = p
      b(i) = q
      c(i) = r
      d(i) = t
      y(i) = y(i) + p * u1 + q * u2 + r * u3 + t * u4
      s1 = s1 + p * u(i)
      s2 = s2 + q * u(i)
      s3 = s3 + r * u(i)
      s4 = s4 + t * u(i)
    end do
    y(m) = y(m) + s1
    y(m + 1) = y(m + 1) + s2
    y(m + 2) = y(m + 2) + s3
    y(m + 3) = y(m + 3) + s4
  end subroutine update_and_multiply_large_real

  ! The last columns, three at most, from m on.
  subroutine update_and_multiply_last_real(n, rows, m, a, v, w, u, y)
    integer, intent(in) :: n, rows, m
    double precision, intent(inout) :: a(rows, n), y(rows)
    double precision, intent(in), dimension(rows) :: v, w, u
    integer :: i, j

    do j = m, n
      a(j, j) = a(j, j) - 2 * v(j) * w(j)
      y(j) = y(j) + a(j, j) * u(j)
      do i = j + 1, n
        a(i, j) = a(i, j) - v(i) * w(j) - w(i) * v(j)
        y(i) = y(i) + a(i, j) * u(j)
        y(j) = y(j) + a(i, j) * u(i)
      end do
    end do
  end subroutine update_and_multiply_last_real

  ! ---------------------------------------------------------------- tridiagonal matrices

  ! The diagonal becomes the eigenvalues, unordered, where converged is one.
  subroutine tridiagonal_eigenvalues(diagonal, squares, n, n_k, converged)
    integer, intent(in) :: n, n_k
    double precision, intent(inout) :: diagonal(n, n_k)
    double precision, intent(in) :: squares(n, n_k)
    integer, intent(inout) :: converged(n_k)
    double precision, allocatable :: work(:)
    integer :: first, last, status, k, vector

    converged = 0
    vector = most * (n + 1)
    allocate(work(2 * vector + 8), stat=status)
    if (status /= 0) return
    k = 1 + misalignment(work)
    do first = 1, n_k, most
      last = min(first + most - 1, n_k)
      call ql_batch(n, last - first + 1, lanes * ((last - first + lanes) / lanes), diagonal(:, first:last), &
        squares(:, first:last), work(k), work(k + vector), converged(first:last))
    end do
  end subroutine tridiagonal_eigenvalues

  subroutine ql_batch(n, n_k, width, diagonal, squares, d, e, converged)
    integer, intent(in) :: n, n_k, width
    double precision, intent(inout) :: diagonal(n, n_k), d(width, 0:n), e(width, 0:n)
    double precision, intent(in) :: squares(n, n_k)
    integer, intent(inout) :: converged(n_k)
    double precision, dimension(most) :: total, factor, low, d0, d1, root, shift, r
    integer :: i, l, step, top

    d = 0
    e = 0
    do i = 1, n
      do l = 1, n_k
        d(l, i) = diagonal(i, l)
      end do
    end do
    do i = 1, n - 1
      do l = 1, n_k
        e(l, i) = squares(i, l)
      end do
    end do
    total = 0
    do i = 1, n
      total(:width) = total(:width) + abs(d(:, i)) + sqrt(e(:, i))
    end do
    do l = 1, width
      if (total(l) > smallest_norm .and. total(l) < largest_norm) then
        factor(l) = scale(1.0d0, -exponent(total(l)))
      else
        d(l, :) = 0
        e(l, :) = 0
        factor(l) = 1
      end if
    end do
    do i = 1, n
      d(:, i) = d(:, i) * factor(:width)
      e(:, i) = e(:, i) * factor(:width)**2
    end do
    low = n + 1
    do i = n - 1, 1, -1
      do l = 1, width
        if (e(l, i) > max(relative * abs(d(l, i) * d(l, i + 1)), absolute)) then
          low(l) = i
        else
          e(l, i) = 0
        end if
      end do
    end do
    d0 = 0
    d1 = 0
    root = 1
    ! Eigenvalue `low` is the next to converge; n + 1 where none is left.
    do step = 1, 30 * n
      top = int(minval(low))
      if (top > n) exit
      do l = 1, width
        i = min(int(low(l)), n - 1)
        d0(l) = d(l, i)
        d1(l) = d(l, i + 1)
        root(l) = e(l, i)
      end do
      root = sqrt(max(root, absolute))
      r = (d1 - d0) / (2 * root)
      shift = d0 - root / (r + sign(sqrt(r * r + 1), r))
      call ql_sweep(n, width, top, d, e, shift, low)
    end do
    do l = 1, n_k
      diagonal(:, l) = d(l, 1:n) / factor(l)
      if (low(l) > n .and. (total(l) <= 0 .or. total(l) > smallest_norm .and. total(l) < largest_norm)) converged(l) = 1
    end do
  end subroutine ql_batch

  ! One QL sweep of each matrix with its own shift, from row n up to its row low - 1, and its next low.
  subroutine ql_sweep(n, width, top, d, e, shift, low)
    integer, intent(in) :: n, width, top
    double precision, intent(inout) :: d(width, 0:n), e(width, 0:n), low(most)
    double precision, intent(in) :: shift(most)
    double precision, dimension(most) :: s, p, gamma, last, end
    double precision :: row, ei, di, r, inverse, q, old_gamma, new_gamma, new_d, new_e, old
    integer :: i, l, group

    end = low - 1
    low = n + 1
    last = 0
    s = 0
    gamma(:width) = d(:, n) - shift(:width)
    gamma(:width) = sign(max(abs(gamma(:width)), tiny), gamma(:width))
    p(:width) = gamma(:width) * gamma(:width)
    do i = n - 1, top - 1, -1
      row = i
      do group = 0, width - lanes, lanes
        !$omp simd private(ei, di, r, inverse, q, old_gamma, new_gamma, new_d, new_e, old)
        do l = group + 1, group + lanes
          ei = e(l, i)
          di = d(l, i)
          old_gamma = gamma(l)
          ! c = p / r, s = e / r, gamma' = c (d - shift) - s gamma, p' = gamma'^2 / c
          r = p(l) + ei
          inverse = 1 / (r * p(l))
          new_e = s(l) * r
          q = p(l) * inverse
          s(l) = ei * q
          new_gamma = (p(l) * q) * (di - shift(l)) - s(l) * old_gamma
          new_gamma = sign(max(abs(new_gamma), tiny), new_gamma) ! so that p is never zero
          gamma(l) = new_gamma
          p(l) = new_gamma * new_gamma * (r * r * inverse)
          new_d = old_gamma + (di - new_gamma)
          old = d(l, i + 1)
          new_d = merge(new_d, old, row >= end(l))
          old = e(l, i + 1)
          new_e = merge(new_e, old, row >= end(l))
          q = max(relative * abs(new_d * last(l)), absolute)
          old = merge(row + 1, n + 1.0d0, new_e > q)
          low(l) = min(low(l), old)
          e(l, i + 1) = merge(new_e, 0.0d0, new_e > q)
          d(l, i + 1) = new_d
          last(l) = new_d
        end do
      end do
    end do
  end subroutine ql_sweep

end module eigen
