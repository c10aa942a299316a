! Which points of a k mesh are images of which others.
!
! Points are numbered with the first address running fastest. An operation takes the address x to x M, modulo the
! divisions, where M holds integers. Every point is given the lowest number among its images; only points that no lower
! one has reached are turned by all operations, so the work is that of the irreducible points. No module variables and
! no I/O: calls from several threads do not meet.
module stars
  implicit none
  private
  public :: lowest_images

contains

  subroutine lowest_images(divisions, operations, n_operations, n_points, lowest)
    integer, intent(in) :: divisions(3), n_operations, n_points
    integer, intent(in) :: operations(3, 3, n_operations)
    integer, intent(inout) :: lowest(n_points)
    integer :: point, operation, address(3), image(3), number

    lowest = -1
    do point = 0, n_points - 1
      if (lowest(point + 1) >= 0) cycle
      address = [mod(point, divisions(1)), mod(point / divisions(1), divisions(2)), point / (divisions(1) * divisions(2))]
      do operation = 1, n_operations
        image = modulo(matmul(operations(:, :, operation), address), divisions)
        number = image(1) + divisions(1) * (image(2) + divisions(2) * image(3))
        if (lowest(number + 1) < 0) lowest(number + 1) = point
      end do
    end do
  end subroutine lowest_images

end module stars
