! Blocks of two-centre integrals between two atoms, from tabulated radial functions.
!
!     <l1 m1, 0| A |l2 m2, R> = sum_L f_L(|R|) sum_M <Y_l1m1 Y_l2m2 Y_LM> Y_LM(R / |R|)
!
! f_L comes from cardinal B-splines of degree 7 whose coefficients of all channels are adjacent in memory; the sum over M
! is done once for each pair of angular momenta and serves all their shells. No module variables and no I/O: calls from
! several threads do not meet.
module blocks
  implicit none
  private
  public :: pair_blocks

  integer, parameter :: degree = 7

contains

  ! rows, offsets: first of the 8 rows of coefficients (from 0) and position in the interval, of each pair; a negative
  ! row stands for both functions on one atom, whose values are row 0.
  ! shells: l1, l2, contractions of both, first function of both, first channel, start of their angular part (from 0).
  ! targets, harmonic_of, factors: Gaunt coefficients; each adds factor * harmonic to one element of the angular part.
  subroutine pair_blocks(coefficients, rows, offsets, distances, harmonics, shells, reaches, targets, harmonic_of, &
                         factors, n_columns, n_rows, n_pairs, n_harmonics, n_shells, n_terms, n_angular, n_channels, &
                         n_other, n_one, n_operators, integrals)
    integer, intent(in) :: n_columns, n_rows, n_pairs, n_harmonics, n_shells, n_terms, n_angular, n_channels
    integer, intent(in) :: n_other, n_one, n_operators
    double precision, intent(in) :: coefficients(n_columns, n_rows), offsets(n_pairs), distances(n_pairs)
    double precision, intent(in) :: harmonics(n_harmonics, n_pairs), reaches(n_shells), factors(n_terms)
    integer, intent(in) :: rows(n_pairs), shells(8, n_shells), targets(n_terms), harmonic_of(n_terms)
    double precision, intent(inout) :: integrals(n_other, n_one, n_operators, n_pairs)
    double precision :: radial(n_columns), angular(n_angular), weights(0:degree)
    integer :: pair, k, term, shell, operator

    do pair = 1, n_pairs
      if (rows(pair) < 0) then
        radial = coefficients(:, 1)
      else
        call spline_weights(offsets(pair), weights)
        radial = 0.0d0
        do k = 0, min(degree, n_rows - 1 - rows(pair))
          radial = radial + weights(k) * coefficients(:, rows(pair) + k + 1)
        end do
      end if
      angular = 0.0d0
      do term = 1, n_terms
        angular(targets(term) + 1) = angular(targets(term) + 1) + factors(term) * harmonics(harmonic_of(term) + 1, pair)
      end do
      do shell = 1, n_shells
        if (distances(pair) > reaches(shell)) cycle
        do operator = 1, n_operators
          call place(shells(:, shell), radial((operator - 1) * n_channels + shells(7, shell) + 1), &
                     angular(shells(8, shell) + 1), n_other, n_one, integrals(:, :, operator, pair))
        end do
      end do
    end do
  end subroutine pair_blocks

  subroutine place(shell, radial, angular, n_other, n_one, block)
    integer, intent(in) :: shell(8), n_other, n_one
    double precision, intent(in) :: radial(0:min(shell(1), shell(2)), shell(4), shell(3))
    double precision, intent(in) :: angular(2 * shell(2) + 1, 2 * shell(1) + 1, 0:min(shell(1), shell(2)))
    double precision, intent(inout) :: block(n_other, n_one)
    integer :: c, d, m, row, column, width, l

    width = 2 * shell(2) + 1
    do c = 1, shell(3)
      do d = 1, shell(4)
        column = shell(6) + (d - 1) * width
        do m = 1, 2 * shell(1) + 1
          row = shell(5) + (c - 1) * (2 * shell(1) + 1) + m
          do l = 0, min(shell(1), shell(2))
            block(column + 1:column + width, row) = block(column + 1:column + width, row) &
                                                    + radial(l, d, c) * angular(:, m, l)
          end do
        end do
      end do
    end do
  end subroutine place

  ! Cardinal B-splines at an offset in [0, 1) from a node, by the Cox-de Boor recursion.
  subroutine spline_weights(offset, weights)
    double precision, intent(in) :: offset
    double precision, intent(out) :: weights(0:degree)
    double precision :: previous, rising
    integer :: order, j

    weights(0) = 1.0d0
    do order = 1, degree
      previous = 0.0d0
      weights(order) = 0.0d0
      do j = 0, order - 1
        rising = (offset + (order - 1 - j)) / order
        ! weights(j) still is of the lower order
        call split(weights(j), rising, previous)
      end do
      weights(order) = previous
    end do
  end subroutine spline_weights

  ! One step of the recursion: what this spline leaves at its place, and what it hands on to the next.
  subroutine split(weight, rising, carried)
    double precision, intent(inout) :: weight, carried
    double precision, intent(in) :: rising
    double precision :: whole

    whole = weight
    weight = carried + (1.0d0 - rising) * whole
    carried = rising * whole
  end subroutine split

end module blocks
