! Fourier sums of real-space blocks, A(R) -> A(k), for groups of blocks between two ranges of functions.
!
! B(k) = sum_R exp(2 pi i k.R) B(R) of each group is added to the rows and columns that the group names, and its
! Hermitian conjugate to columns and rows. With an inversion centre (real_combinations /= 0) the sums, times the phase
! factors of the functions' own positions, are combined to real matrices; module sorep.bloch gives the formulas.
!
! Matrices are written as C arrays (n_operators, n_k, n, n) of complex (n_components = 2) or real numbers. A few k points
! are done at a time, so that every block is read once for all of them; elements run in small tiles that stay in
! registers. No module variables and no I/O: calls from several threads do not meet.
module sums
  implicit none
  private
  public :: bloch_sums

  integer, parameter :: at_once = 4   ! k points
  integer, parameter :: tile = 4      ! elements
  double precision, parameter :: two_pi = 6.283185307179586476925286766559d0

contains

  subroutine bloch_sums(kpoints, translations, rows, columns, starts, offsets, images, blocks, real_combinations, &
                        positions, partner, parity, n_k, n_translations, n_groups, n_blocks, n_elements, n, &
                        n_operators, n_components, matrices, status)
    integer, intent(in) :: n_k, n_translations, n_groups, n_blocks, n_elements, n, n_operators, n_components
    double precision, intent(in) :: kpoints(3, n_k), blocks(n_elements), positions(3, n), parity(n)
    integer, intent(in) :: translations(3, n_translations), rows(2, n_groups), columns(2, n_groups)
    integer, intent(in) :: starts(n_groups + 1), offsets(n_groups + 1), images(n_blocks), partner(n)
    integer, intent(in) :: real_combinations
    double precision, intent(inout) :: matrices(n_components, n, n, n_k, n_operators)
    integer, intent(out) :: status
    double precision, allocatable :: of_translation(:, :), of_block(:, :), total(:, :)
    double precision :: gauge(2, at_once), phase
    integer :: group, first, last, k, count, size, n_of_group, most_elements, most_blocks, operator

    status = 0
    most_blocks = 1
    most_elements = 1
    do group = 1, n_groups
      most_blocks = max(most_blocks, starts(group + 1) - starts(group))
      most_elements = max(most_elements, n_operators * rows(2, group) * columns(2, group))
    end do
    most_elements = (most_elements + tile - 1) / tile * tile
    allocate (of_translation(2 * at_once, n_translations), of_block(2 * at_once, most_blocks), &
              total(most_elements, 2 * at_once), stat=status)
    if (status /= 0) return

    do first = 1, n_k, at_once
      last = min(first + at_once - 1, n_k)
      count = last - first + 1
      call phase_factors(kpoints(:, first:last), translations, count, n_translations, of_translation)
      do group = 1, n_groups
        n_of_group = starts(group + 1) - starts(group)
        size = n_operators * rows(2, group) * columns(2, group)
        if (n_of_group == 0 .or. size == 0) cycle
        if (real_combinations /= 0) then
          gauge = 0.0d0
          do k = 1, count
            phase = two_pi * dot_product(kpoints(:, first + k - 1), &
                                         positions(:, columns(1, group) + 1) - positions(:, rows(1, group) + 1))
            gauge(:, k) = [cos(phase), sin(phase)]
          end do
        end if
        call gather(of_translation, images(starts(group) + 1:starts(group + 1)), n_translations, n_of_group, &
                    real_combinations /= 0, gauge, of_block)
        call add_up(blocks(offsets(group) + 1:offsets(group + 1)), of_block, size, n_of_group, most_elements, total)
        if (real_combinations /= 0) then
          call place_real(total, most_elements, rows(:, group), columns(:, group), partner, parity, first, count, &
                          n, n_k, n_operators, matrices)
        else
          call place_complex(total, most_elements, rows(:, group), columns(:, group), first, count, &
                             n, n_k, n_operators, matrices)
        end if
      end do
      do operator = 1, n_operators
        do k = first, last
          call add_conjugate(matrices(:, :, :, k, operator), n, n_components)
        end do
      end do
    end do
  end subroutine bloch_sums

  ! B -> B + B^dagger, tile by tile
  subroutine add_conjugate(matrix, n, n_components)
    integer, intent(in) :: n, n_components
    double precision, intent(inout) :: matrix(n_components, n, n)
    integer, parameter :: edge = 16
    double precision :: first, second
    integer :: row, column, i, j

    do row = 1, n, edge
      do column = row, n, edge
        do i = row, min(row + edge - 1, n)
          do j = max(column, i), min(column + edge - 1, n)
            first = matrix(1, j, i) + matrix(1, i, j)
            matrix(1, j, i) = first
            matrix(1, i, j) = first
          end do
          if (n_components == 2) then
            do j = max(column, i), min(column + edge - 1, n)
              second = matrix(2, j, i) - matrix(2, i, j)
              matrix(2, j, i) = second
              matrix(2, i, j) = -second
            end do
          end if
        end do
      end do
    end do
  end subroutine add_conjugate

  ! Cosines (odd rows) and sines (even rows) of 2 pi k.R, as products of one factor for each axis.
  subroutine phase_factors(kpoints, translations, count, n_translations, factors)
    integer, intent(in) :: count, n_translations
    double precision, intent(in) :: kpoints(3, count)
    integer, intent(in) :: translations(3, n_translations)
    double precision, intent(out) :: factors(2 * at_once, n_translations)
    integer :: lowest(3), highest(3), axis, k, i, r
    complex(kind(1.0d0)), allocatable :: powers(:, :)
    complex(kind(1.0d0)) :: factor

    lowest = minval(translations, dim=2)
    highest = maxval(translations, dim=2)
    allocate (powers(minval(lowest):maxval(highest), 3))
    factors = 0.0d0
    do k = 1, count
      do axis = 1, 3
        do i = lowest(axis), highest(axis)
          powers(i, axis) = cmplx(cos(two_pi * kpoints(axis, k) * i), sin(two_pi * kpoints(axis, k) * i), kind(1.0d0))
        end do
      end do
      do r = 1, n_translations
        factor = powers(translations(1, r), 1) * powers(translations(2, r), 2) * powers(translations(3, r), 3)
        factors(2 * k - 1, r) = real(factor)
        factors(2 * k, r) = aimag(factor)
      end do
    end do
  end subroutine phase_factors

  subroutine gather(of_translation, images, n_translations, n_blocks, shifted, gauge, of_block)
    integer, intent(in) :: n_translations, n_blocks, images(n_blocks)
    double precision, intent(in) :: of_translation(2 * at_once, n_translations), gauge(2, at_once)
    logical, intent(in) :: shifted
    double precision, intent(out) :: of_block(2 * at_once, n_blocks)
    double precision :: cosine, sine
    integer :: block, k

    if (.not. shifted) then
      do block = 1, n_blocks
        of_block(:, block) = of_translation(:, images(block) + 1)
      end do
      return
    end if
    do block = 1, n_blocks
      do k = 1, at_once
        cosine = of_translation(2 * k - 1, images(block) + 1)
        sine = of_translation(2 * k, images(block) + 1)
        of_block(2 * k - 1, block) = cosine * gauge(1, k) - sine * gauge(2, k)
        of_block(2 * k, block) = cosine * gauge(2, k) + sine * gauge(1, k)
      end do
    end do
  end subroutine gather

  ! total(e, f) = sum_b blocks(e, b) factors(f, b), in tiles of elements; the last tile overlaps the one before it.
  subroutine add_up(blocks, factors, size, n_blocks, leading, total)
    integer, intent(in) :: size, n_blocks, leading
    double precision, intent(in) :: blocks(size, n_blocks), factors(2 * at_once, n_blocks)
    double precision, intent(inout) :: total(leading, 2 * at_once)
    double precision :: sums(tile, 2 * at_once), few(2 * at_once)
    integer :: start, block, f, e

    if (size < tile) then
      do e = 1, size
        few = 0.0d0
        do block = 1, n_blocks
          few = few + blocks(e, block) * factors(:, block)
        end do
        total(e, :) = few
      end do
      return
    end if
    start = 0
    do
      sums = 0.0d0
      do block = 1, n_blocks
        do f = 1, 2 * at_once
          do e = 1, tile
            sums(e, f) = sums(e, f) + blocks(start + e, block) * factors(f, block)
          end do
        end do
      end do
      total(start + 1:start + tile, :) = sums
      if (start == size - tile) exit
      start = min(start + tile, size - tile)
    end do
  end subroutine add_up

  subroutine place_complex(total, leading, rows, columns, first, count, n, n_k, n_operators, matrices)
    integer, intent(in) :: leading, rows(2), columns(2), first, count, n, n_k, n_operators
    double precision, intent(in) :: total(leading, 2 * at_once)
    double precision, intent(inout) :: matrices(2, n, n, n_k, n_operators)
    integer :: operator, k, i, j, e, row, column

    do k = 1, count
      e = 0
      do operator = 1, n_operators
        do i = 1, rows(2)
          row = rows(1) + i
          do j = 1, columns(2)
            e = e + 1
            column = columns(1) + j
            matrices(1, column, row, first + k - 1, operator) = &
              matrices(1, column, row, first + k - 1, operator) + total(e, 2 * k - 1)
            matrices(2, column, row, first + k - 1, operator) = &
              matrices(2, column, row, first + k - 1, operator) + total(e, 2 * k)
          end do
        end do
      end do
    end do
  end subroutine place_complex

  subroutine place_real(total, leading, rows, columns, partner, parity, first, count, n, n_k, n_operators, matrices)
    integer, intent(in) :: leading, rows(2), columns(2), first, count, n, n_k, n_operators
    double precision, intent(in) :: total(leading, 2 * at_once), parity(n)
    integer, intent(in) :: partner(n)
    double precision, intent(inout) :: matrices(n, n, n_k, n_operators)
    double precision, parameter :: root = 1.4142135623730950488016887242097d0
    double precision :: cosine, sine, sign, swap
    integer :: operator, k, i, j, e, row, column, row_base, column_base, row_partner, column_partner, plus, minus
    logical :: row_alone, column_alone, is_second

    row_base = rows(1)
    column_base = columns(1)
    row_partner = partner(row_base + 1)
    column_partner = partner(column_base + 1)
    row_alone = row_partner == row_base
    column_alone = column_partner == column_base
    plus = min(column_base, column_partner)
    minus = max(column_base, column_partner)
    is_second = column_base > column_partner
    sign = merge(-1.0d0, 1.0d0, is_second)

    do k = 1, count
      e = 0
      do operator = 1, n_operators
        do i = 1, rows(2)
          row = row_base + i
          do j = 1, columns(2)
            e = e + 1
            cosine = total(e, 2 * k - 1)
            sine = total(e, 2 * k)
            column = column_base + j
            if (column_alone) then
              if (parity(column) < 0.0d0) then
                swap = cosine
                cosine = -sine
                sine = swap
              end if
              if (row_alone) then
                call add(row, column, merge(cosine, sine, parity(row) > 0.0d0))
              else
                call add(row, column, root * cosine)
                call add(row_partner + i, column, root * sine)
              end if
            else if (row_alone) then
              if (parity(row) > 0.0d0) then
                call add(row, plus + j, root * cosine)
                call add(row, minus + j, -root * sine)
              else
                call add(row, plus + j, root * sine)
                call add(row, minus + j, root * cosine)
              end if
            else
              if (is_second) then
                cosine = parity(column) * cosine
                sine = parity(column) * sine
              end if
              call add(row, plus + j, cosine)
              call add(row, minus + j, -sign * sine)
              call add(row_partner + i, plus + j, sine)
              call add(row_partner + i, minus + j, sign * cosine)
            end if
          end do
        end do
      end do
    end do

  contains

    subroutine add(at_row, at_column, value)
      integer, intent(in) :: at_row, at_column
      double precision, intent(in) :: value

      matrices(at_column, at_row, first + k - 1, operator) = matrices(at_column, at_row, first + k - 1, operator) + value
    end subroutine add

  end subroutine place_real

end module sums
