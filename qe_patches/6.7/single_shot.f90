!
! This file is part of sorep. It is compiled into Quantum ESPRESSO and distributed under the terms of the
! GNU General Public License, version 2 or later, as Quantum ESPRESSO itself.
!
!------------------------------------------------------------------------------
MODULE single_shot
  !----------------------------------------------------------------------------
  !! Kohn-Sham Hamiltonian of the superposed atomic densities, diagonalised once and exactly in the basis of all
  !! pseudo-atomic orbitals (PAOs) of the pseudopotentials.
  !!
  !! pw.x enters this mode for calculation='scf' with electron_maxstep=0 and startingwfc='atomic'. At every k point
  !!
  !!     H = <phi| T + V_loc + sum_ij |beta_i> D_ij <beta_j| |phi>      S = <phi| 1 + sum_ij |beta_i> q_ij <beta_j| |phi>
  !!
  !! are formed from the Bloch sums phi of the PAOs, and H c = e S c is solved by LAPACK. Collinear calculations at
  !! general k points work with the small matrices <beta|phi> alone; Gamma-only and non-collinear ones apply H and S
  !! with the routines of pw.x (h_psi, s_psi).
  !!
  !! Where S has eigenvalues below `smallest_overlap` the space that they span is projected out (canonical
  !! orthogonalisation); the bands that are lost are set to `absent_band` and reported. With disk_io='high' the
  !! matrices are written to PREFIX.save/hsNNNNN.dat, one file for each k point and spin (format: write_matrices).
  !
  USE kinds,      ONLY : DP
  USE io_global,  ONLY : stdout
  !
  IMPLICIT NONE
  !
  PRIVATE
  PUBLIC :: single_shot_announce, single_shot_requested, single_shot_setup, single_shot_run
  !
  INTEGER, PARAMETER :: revision = 1
  !! of this patch; changes whenever its results or files do
  REAL(DP), PARAMETER :: smallest_overlap = 1.E-8_DP
  !! eigenvalues of S below this count as linear dependence
  REAL(DP), PARAMETER :: absent_band = 1.E6_DP
  !! Ry; stands for a band that was removed
  INTEGER, PARAMETER :: block_size = 64
  !! bands to which the Hamiltonian is applied at once
  COMPLEX(DP), PARAMETER :: zero = (0._DP, 0._DP), one = (1._DP, 0._DP)
  !
CONTAINS
  !
  !----------------------------------------------------------------------------
  SUBROUTINE single_shot_announce()
    !--------------------------------------------------------------------------
    !! Printed at start-up, so that this pw.x can be told from a stock one.
    !
    WRITE( stdout, '(5X,"Single-shot mode available: sorep patch, revision ",I0)' ) revision
    !
  END SUBROUTINE single_shot_announce
  !
  !----------------------------------------------------------------------------
  LOGICAL FUNCTION single_shot_requested()
    !--------------------------------------------------------------------------
    !! Whether the input asks for this mode.
    !
    USE basis,         ONLY : starting_wfc
    USE control_flags, ONLY : lscf, niter
    !
    single_shot_requested = lscf .AND. niter == 0 .AND. TRIM( starting_wfc ) == 'atomic'
    !
  END FUNCTION single_shot_requested
  !
  !----------------------------------------------------------------------------
  SUBROUTINE single_shot_setup( natomwfc, nbnd )
    !--------------------------------------------------------------------------
    !! Refuse what this mode does not do, and ask for as many bands as there are atomic wavefunctions.
    !
    USE basis,            ONLY : starting_pot
    USE bp,               ONLY : lelfield, lberry, lorbm
    USE control_flags,    ONLY : lbfgs, lmd
    USE extfield,         ONLY : tefield, gate
    USE fixed_occ,        ONLY : one_atom_occupations
    USE funct,            ONLY : dft_is_hybrid, dft_is_meta
    USE ions_base,        ONLY : nsp
    USE ldaU,             ONLY : lda_plus_u
    USE mp_bands,         ONLY : nbgrp
    USE noncollin_module, ONLY : i_cons
    USE realus,           ONLY : real_space
    USE uspp_param,       ONLY : upf
    USE wannier_new,      ONLY : use_wannier
    !
    INTEGER, INTENT(IN) :: natomwfc
    !! number of atomic wavefunctions
    INTEGER, INTENT(INOUT) :: nbnd
    !! number of bands
    INTEGER :: nt
    !
    CALL refuse_if( lbfgs .OR. lmd, 'moving atoms' )
    CALL refuse_if( lda_plus_u, 'DFT+U' )
    CALL refuse_if( dft_is_hybrid(), 'hybrid functionals' )
    CALL refuse_if( dft_is_meta(), 'meta-GGA functionals' )
    CALL refuse_if( lelfield .OR. lberry .OR. lorbm .OR. tefield .OR. gate, 'electric fields' )
    CALL refuse_if( i_cons /= 0, 'constrained magnetisation' )
    CALL refuse_if( real_space, 'real-space projectors' )
    CALL refuse_if( use_wannier .OR. one_atom_occupations, 'Wannier functions or one_atom_occupations' )
    CALL refuse_if( nbgrp > 1, 'band groups: use pools, -nk' )
    CALL refuse_if( starting_pot /= 'atomic', 'a density from a file: set startingpot=''atomic''' )
    DO nt = 1, nsp
       IF ( usable_orbitals( upf(nt)%nwfc, upf(nt)%oc ) == 0 ) CALL errore( 'single_shot', &
            'the pseudopotential of ' // TRIM( upf(nt)%psd ) // ' has no atomic wavefunctions', nt )
    ENDDO
    !
    nbnd = natomwfc
    !
  END SUBROUTINE single_shot_setup
  !
  !----------------------------------------------------------------------------
  INTEGER FUNCTION usable_orbitals( nwfc, occupations )
    !--------------------------------------------------------------------------
    !! pw.x leaves out atomic wavefunctions of negative occupation.
    !
    INTEGER, INTENT(IN)  :: nwfc
    REAL(DP), INTENT(IN) :: occupations(:)
    !
    usable_orbitals = 0
    IF ( nwfc > 0 ) usable_orbitals = COUNT( occupations(1:nwfc) >= 0._DP )
    !
  END FUNCTION usable_orbitals
  !
  !----------------------------------------------------------------------------
  SUBROUTINE refuse_if( condition, what )
    !--------------------------------------------------------------------------
    LOGICAL, INTENT(IN)          :: condition
    CHARACTER(LEN=*), INTENT(IN) :: what
    !
    IF ( condition ) CALL errore( 'single_shot', &
         'electron_maxstep=0 with startingwfc=''atomic'' does not work with ' // what, 1 )
    !
  END SUBROUTINE refuse_if
  !
  !----------------------------------------------------------------------------
  SUBROUTINE single_shot_run()
    !--------------------------------------------------------------------------
    !! Eigenvalues at all k points, and the XML file.
    !
    USE becmod,           ONLY : allocate_bec_type, deallocate_bec_type, becp
    USE control_flags,    ONLY : conv_elec, gamma_only, io_level
    USE io_files,         ONLY : create_directory, restart_dir
    USE klist,            ONLY : igk_k, ngk, nks, nkstot, xk
    USE lsda_mod,         ONLY : current_spin, isk, lsda
    USE mp_bands,         ONLY : intra_bgrp_comm
    USE noncollin_module, ONLY : noncolin
    USE uspp,             ONLY : nkb, vkb
    USE wavefunctions,    ONLY : evc
    USE wvfct,            ONLY : current_k, et, nbnd, wg
    !
    COMPLEX(DP), ALLOCATABLE :: h(:,:), s(:,:)
    INTEGER :: ik
    INTEGER, EXTERNAL :: global_kpoint_index
    !
    CALL start_clock( 'single_shot' )
    !
    WRITE( stdout, '(/5X,"Single shot: ",I0," atomic wavefunctions at ",I0," k points")' ) nbnd, nkstot
    ALLOCATE( h(nbnd,nbnd), s(nbnd,nbnd) )
    IF ( io_level > 1 ) CALL create_directory( restart_dir() )
    CALL allocate_bec_type( nkb, nbnd, becp, intra_bgrp_comm )
    !
    DO ik = 1, nks
       !
       current_k = ik
       IF ( lsda ) current_spin = isk(ik)
       CALL g2_kin( ik )
       IF ( nkb > 0 ) CALL init_us_2( ngk(ik), igk_k(1,ik), xk(1,ik), vkb )
       CALL atomic_wfc( ik, evc )
       !
       IF ( gamma_only ) THEN
          CALL matrices_gamma( ngk(ik), evc, h, s )
       ELSEIF ( noncolin ) THEN
          CALL matrices_noncollinear( ngk(ik), evc, h, s )
       ELSE
          CALL matrices_collinear( ik, evc, h, s )
       ENDIF
       !
       IF ( io_level > 1 ) CALL write_matrices( ik, h, s )
       CALL eigenvalues( global_kpoint_index( nkstot, ik ), h, s, et(:,ik) )
       FLUSH( stdout )
       !
    ENDDO
    !
    CALL deallocate_bec_type( becp )
    CALL poolrecover( et, nbnd, nkstot, nks )
    wg(:,:) = 0._DP
    conv_elec = .TRUE.
    !
    CALL stop_clock( 'single_shot' )
    CALL print_clock( 'single_shot' )
    !
  END SUBROUTINE single_shot_run
  !
  !----------------------------------------------------------------------------
  SUBROUTINE matrices_collinear( ik, psi, h, s )
    !--------------------------------------------------------------------------
    !! H (Ry) and S at a general k point; both triangles are set.
    !
    USE fft_base,         ONLY : dffts
    USE ions_base,        ONLY : ityp, nat
    USE klist,            ONLY : igk_k, ngk
    USE lsda_mod,         ONLY : current_spin
    USE mp,               ONLY : mp_sum
    USE mp_bands,         ONLY : intra_bgrp_comm
    USE scf,              ONLY : vrs
    USE uspp,             ONLY : deeq, indv_ijkb0, nkb, okvan, qq_at, vkb
    USE uspp_param,       ONLY : nh, nhm, upf
    USE wvfct,            ONLY : g2kin, npwx
    !
    INTEGER, INTENT(IN)      :: ik
    COMPLEX(DP), INTENT(IN)  :: psi(:,:)
    COMPLEX(DP), INTENT(OUT) :: h(:,:), s(:,:)
    !
    COMPLEX(DP), ALLOCATABLE :: beta_psi(:,:), d_beta_psi(:,:), hpsi(:,:)
    INTEGER :: n, npw, first, last, ibnd, na
    !
    n = SIZE( psi, 2 )
    npw = ngk(ik)
    ALLOCATE( hpsi(npw,MIN( block_size, n )) )
    !
    ! ... kinetic energy and local potential, the upper triangle a block of columns at a time
    !
    CALL start_clock( 'single_shot:v' )
    DO first = 1, n, block_size
       last = MIN( first + block_size - 1, n )
       CALL potential_times( dffts%nl(igk_k(1:npw,ik)), vrs(:,current_spin), psi(:,first:last), hpsi )
       DO ibnd = first, last
          hpsi(:,ibnd-first+1) = hpsi(:,ibnd-first+1) + g2kin(1:npw) * psi(1:npw,ibnd)
       ENDDO
       CALL ZGEMM( 'C', 'N', last, last-first+1, npw, one, psi, SIZE( psi, 1 ), hpsi, npw, zero, h(1,first), n )
    ENDDO
    CALL stop_clock( 'single_shot:v' )
    CALL ZHERK( 'U', 'C', n, npw, 1._DP, psi, SIZE( psi, 1 ), 0._DP, s, n )
    !
    ! ... projectors: only the small matrices <beta|psi> are needed
    !
    IF ( nkb > 0 ) THEN
       ALLOCATE( beta_psi(nkb,n), d_beta_psi(nkb,n) )
       CALL ZGEMM( 'C', 'N', nkb, n, npw, one, vkb, npwx, psi, SIZE( psi, 1 ), zero, beta_psi, nkb )
       CALL mp_sum( h, intra_bgrp_comm )
       CALL mp_sum( s, intra_bgrp_comm )
       CALL mp_sum( beta_psi, intra_bgrp_comm )
       d_beta_psi = zero
       DO na = 1, nat
          CALL apply( nh(ityp(na)), indv_ijkb0(na), deeq(:,:,na,current_spin) )
       ENDDO
       CALL add_to( h )
       IF ( okvan ) THEN
          d_beta_psi = zero
          DO na = 1, nat
             IF ( upf(ityp(na))%tvanp ) CALL apply( nh(ityp(na)), indv_ijkb0(na), qq_at(:,:,na) )
          ENDDO
          CALL add_to( s )
       ENDIF
    ELSE
       CALL mp_sum( h, intra_bgrp_comm )
       CALL mp_sum( s, intra_bgrp_comm )
    ENDIF
    !
    CALL complete( h )
    CALL complete( s )
    !
  CONTAINS
    !
    SUBROUTINE apply( n_projectors, before, coefficients )
      !! One atom's rows of D <beta|psi>.
      INTEGER, INTENT(IN)  :: n_projectors, before
      REAL(DP), INTENT(IN) :: coefficients(nhm,nhm)
      !
      IF ( n_projectors == 0 ) RETURN
      d_beta_psi(before+1:before+n_projectors,:) = &
           MATMUL( coefficients(1:n_projectors,1:n_projectors), beta_psi(before+1:before+n_projectors,:) )
    END SUBROUTINE apply
    !
    SUBROUTINE add_to( matrix )
      !! Add <psi|beta> D <beta|psi> to the upper triangle.
      COMPLEX(DP), INTENT(INOUT) :: matrix(:,:)
      INTEGER :: first, last
      !
      DO first = 1, n, block_size
         last = MIN( first + block_size - 1, n )
         CALL ZGEMM( 'C', 'N', last, last-first+1, nkb, one, beta_psi, nkb, d_beta_psi(1,first), nkb, &
                     one, matrix(1,first), n )
      ENDDO
    END SUBROUTINE add_to
    !
  END SUBROUTINE matrices_collinear
  !
  !----------------------------------------------------------------------------
  SUBROUTINE potential_times( place, v, psi, vpsi )
    !--------------------------------------------------------------------------
    !! V psi for a block of bands, at the plane waves of psi.
    !!
    !! With FFTW in one process, only lines and planes that psi reaches are transformed along x and y, and the transform
    !! along z, the product with V and the transform back are done for a few columns at a time, in cache. Otherwise
    !! the transforms of pw.x are used.
    !
    USE fft_base,       ONLY : dffts
    USE fft_interfaces, ONLY : fwfft, invfft
    USE wavefunctions,  ONLY : psic
    !
    INTEGER, INTENT(IN)      :: place(:)
    !! of each plane wave on the FFT grid
    REAL(DP), INTENT(IN)     :: v(*)
    !! potential on the FFT grid, Ry
    COMPLEX(DP), INTENT(IN)  :: psi(:,:)
    COMPLEX(DP), INTENT(OUT) :: vpsi(:,:)
    !
    INTEGER :: ibnd, npw
    !
#if defined(__FFTW3) && ! defined(__MPI)
    IF ( dffts%nr1x == dffts%nr1 .AND. dffts%nr2x == dffts%nr2 ) THEN
       CALL potential_times_in_cache( dffts%nr1, dffts%nr2, dffts%nr3, place, v, psi, vpsi )
       RETURN
    ENDIF
#endif
    npw = SIZE( place )
    DO ibnd = 1, SIZE( psi, 2 )
       psic(:) = zero
       psic(place) = psi(1:npw,ibnd)
       CALL invfft( 'Wave', psic, dffts )
       psic(1:dffts%nnr) = psic(1:dffts%nnr) * v(1:dffts%nnr)
       CALL fwfft( 'Wave', psic, dffts )
       vpsi(1:npw,ibnd) = psic(place)
    ENDDO
    !
  END SUBROUTINE potential_times
  !
#if defined(__FFTW3) && ! defined(__MPI)
  !----------------------------------------------------------------------------
  SUBROUTINE potential_times_in_cache( n1, n2, n3, place, v, psi, vpsi )
    !--------------------------------------------------------------------------
    INTEGER, INTENT(IN)      :: n1, n2, n3, place(:)
    REAL(DP), INTENT(IN)     :: v(n1*n2,n3)
    COMPLEX(DP), INTENT(IN)  :: psi(:,:)
    COMPLEX(DP), INTENT(OUT) :: vpsi(:,:)
    !
    INTEGER, PARAMETER :: width = 16
    !! columns that are transformed together
    INTEGER, PARAMETER :: long = SELECTED_INT_KIND( 18 )
    INTEGER(long), SAVE :: x(-1:1), y(-1:1), z(-1:1)
    !! FFTW plans by direction: 1 to real space, -1 back
    INTEGER, SAVE :: planned(3) = 0
    COMPLEX(DP), ALLOCATABLE, SAVE :: a(:,:), b(:,:)
    !! the columns
    COMPLEX(DP), ALLOCATABLE :: grid(:,:,:)
    !! the planes along z that psi reaches
    INTEGER, ALLOCATABLE :: packed(:), plane(:), reached(:), line(:)
    !! places in grid; of each z its plane, of each plane its z; lines along x that psi reaches, all planes counted on
    INTEGER :: npw, ibnd, ip, iz, np
    !
    IF ( ANY( planned /= [n1, n2, n3] ) ) CALL make_plans()
    !
    npw = SIZE( place )
    ALLOCATE( plane(n3), packed(npw) )
    plane = 0
    plane((place-1)/(n1*n2)+1) = 1
    reached = PACK( [(iz, iz = 1, n3)], plane == 1 )
    np = SIZE( reached )
    plane(reached) = [(ip, ip = 1, np)]
    packed = MOD( place-1, n1*n2 ) + n1*n2 * (plane((place-1)/(n1*n2)+1)-1) + 1
    line = lines( packed )
    ALLOCATE( grid(n1,n2,np) )
    !
    DO ibnd = 1, SIZE( psi, 2 )
       CALL scatter( grid, psi(1:npw,ibnd) )
       CALL along_x( grid, x(1) )
       CALL along_y( y(1) )
       CALL along_z_and_back( grid )
       CALL along_y( y(-1) )
       CALL along_x( grid, x(-1) )
       CALL gather( grid, vpsi(1:npw,ibnd) )
    ENDDO
    !
  CONTAINS
    !
    SUBROUTINE make_plans()
      INTEGER, PARAMETER :: estimate = 64  ! FFTW_ESTIMATE: the same plan every time
      COMPLEX(DP), ALLOCATABLE :: row(:)
      INTEGER :: way
      !
      IF ( ALLOCATED( a ) ) DEALLOCATE( a, b )
      ALLOCATE( a(width,MAX( n2, n3 )), b(width,MAX( n2, n3 )), row(n1) )
      DO way = -1, 1, 2
         CALL dfftw_plan_many_dft( x(way), 1, n1, 1, row, n1, 1, n1, row, n1, 1, n1, way, estimate )
         CALL dfftw_plan_many_dft( y(way), 1, n2, width, a, n2, width, 1, b, n2, width, 1, way, estimate )
         CALL dfftw_plan_many_dft( z(way), 1, n3, width, a, n3, width, 1, b, n3, width, 1, way, estimate )
      ENDDO
      planned = [n1, n2, n3]
    END SUBROUTINE make_plans
    !
    FUNCTION lines( packed )
      INTEGER, INTENT(IN)  :: packed(:)
      INTEGER, ALLOCATABLE :: lines(:)
      LOGICAL :: is_reached(n2*np)
      INTEGER :: i
      !
      is_reached = .FALSE.
      is_reached((packed-1)/n1+1) = .TRUE.
      lines = PACK( [(i, i = 1, n2*np)], is_reached )
    END FUNCTION lines
    !
    SUBROUTINE scatter( points, values )
      COMPLEX(DP), INTENT(OUT) :: points(n1*n2*np)
      COMPLEX(DP), INTENT(IN)  :: values(npw)
      points = zero
      points(packed) = values
    END SUBROUTINE scatter
    !
    SUBROUTINE gather( points, values )
      COMPLEX(DP), INTENT(IN)  :: points(n1*n2*np)
      COMPLEX(DP), INTENT(OUT) :: values(npw)
      values = points(packed) / (n1*n2*n3)
    END SUBROUTINE gather
    !
    SUBROUTINE along_x( rows, plan )
      COMPLEX(DP), INTENT(INOUT) :: rows(n1,n2*np)
      INTEGER(long), INTENT(IN)  :: plan
      INTEGER :: i
      DO i = 1, SIZE( line )
         CALL dfftw_execute_dft( plan, rows(1,line(i)), rows(1,line(i)) )
      ENDDO
    END SUBROUTINE along_x
    !
    SUBROUTINE along_y( plan )
      INTEGER(long), INTENT(IN) :: plan
      INTEGER :: ip, iy, i, w
      DO ip = 1, np
         DO i = 1, n1, width
            w = MIN( width, n1-i+1 )
            DO iy = 1, n2
               CALL copy( w, grid(i,iy,ip), a(1,iy) )
            ENDDO
            CALL dfftw_execute_dft( plan, a, b )
            DO iy = 1, n2
               CALL copy( w, b(1,iy), grid(i,iy,ip) )
            ENDDO
         ENDDO
      ENDDO
    END SUBROUTINE along_y
    !
    SUBROUTINE along_z_and_back( planes )
      COMPLEX(DP), INTENT(INOUT) :: planes(n1*n2,np)
      INTEGER :: ip, iz, i, w
      DO i = 1, n1*n2, width
         w = MIN( width, n1*n2-i+1 )
         a(:,1:n3) = zero
         DO ip = 1, np
            CALL copy( w, planes(i,ip), a(1,reached(ip)) )
         ENDDO
         CALL dfftw_execute_dft( z(1), a, b )
         DO iz = 1, n3
            a(1:w,iz) = b(1:w,iz) * v(i:i+w-1,iz)
         ENDDO
         CALL dfftw_execute_dft( z(-1), a, b )
         DO ip = 1, np
            CALL copy( w, b(1,reached(ip)), planes(i,ip) )
         ENDDO
      ENDDO
    END SUBROUTINE along_z_and_back
    !
    SUBROUTINE copy( w, from, to )
      INTEGER, INTENT(IN)        :: w
      COMPLEX(DP), INTENT(IN)    :: from(width)
      COMPLEX(DP), INTENT(INOUT) :: to(width)
      IF ( w == width ) THEN
         to = from
      ELSE
         to(1:w) = from(1:w)
      ENDIF
    END SUBROUTINE copy
    !
  END SUBROUTINE potential_times_in_cache
  !
#endif
  !----------------------------------------------------------------------------
  SUBROUTINE matrices_noncollinear( npw, psi, h, s )
    !--------------------------------------------------------------------------
    !! H (Ry) and S between spinors, through h_psi and s_psi.
    !
    USE mp,               ONLY : mp_sum
    USE mp_bands,         ONLY : intra_bgrp_comm
    USE wvfct,            ONLY : npwx
    !
    INTEGER, INTENT(IN)      :: npw
    COMPLEX(DP), INTENT(IN)  :: psi(:,:)
    COMPLEX(DP), INTENT(OUT) :: h(:,:), s(:,:)
    !
    COMPLEX(DP), ALLOCATABLE :: applied(:,:)
    INTEGER :: n, ndim
    !
    n = SIZE( psi, 2 )
    ndim = SIZE( psi, 1 )
    ALLOCATE( applied(ndim,n) )
    CALL h_psi( npwx, npw, n, psi, applied )
    CALL ZGEMM( 'C', 'N', n, n, ndim, one, psi, ndim, applied, ndim, zero, h, n )
    CALL s_psi( npwx, npw, n, psi, applied )
    CALL ZGEMM( 'C', 'N', n, n, ndim, one, psi, ndim, applied, ndim, zero, s, n )
    CALL mp_sum( h, intra_bgrp_comm )
    CALL mp_sum( s, intra_bgrp_comm )
    CALL complete( h )
    CALL complete( s )
    !
  END SUBROUTINE matrices_noncollinear
  !
  !----------------------------------------------------------------------------
  SUBROUTINE matrices_gamma( npw, psi, h, s )
    !--------------------------------------------------------------------------
    !! H (Ry) and S between real functions of which half of the plane waves are kept, through h_psi and s_psi.
    !
    USE gvect,            ONLY : gstart
    USE mp,               ONLY : mp_sum
    USE mp_bands,         ONLY : intra_bgrp_comm
    USE wvfct,            ONLY : npwx
    !
    INTEGER, INTENT(IN)        :: npw
    COMPLEX(DP), INTENT(INOUT) :: psi(:,:)
    COMPLEX(DP), INTENT(OUT)   :: h(:,:), s(:,:)
    !
    COMPLEX(DP), ALLOCATABLE :: applied(:,:)
    INTEGER :: n
    !
    n = SIZE( psi, 2 )
    ALLOCATE( applied(npwx,n) )
    IF ( gstart == 2 ) psi(1,:) = CMPLX( REAL( psi(1,:), DP ), 0._DP, DP )
    CALL h_psi( npwx, npw, n, psi, applied )
    CALL real_products( h )
    CALL s_psi( npwx, npw, n, psi, applied )
    CALL real_products( s )
    !
  CONTAINS
    !
    SUBROUTINE real_products( matrix )
      !! <psi|applied>, twice the sum over the kept half; G = 0 counts once.
      COMPLEX(DP), INTENT(OUT) :: matrix(:,:)
      REAL(DP), ALLOCATABLE    :: product(:,:)
      !
      ALLOCATE( product(n,n) )
      CALL DGEMM( 'T', 'N', n, n, 2*npw, 2._DP, psi, 2*npwx, applied, 2*npwx, 0._DP, product, n )
      IF ( gstart == 2 ) CALL DGER( n, n, -1._DP, psi, 2*npwx, applied, 2*npwx, product, n )
      CALL mp_sum( product, intra_bgrp_comm )
      matrix = CMPLX( product, 0._DP, DP )
      CALL complete( matrix )
    END SUBROUTINE real_products
    !
  END SUBROUTINE matrices_gamma
  !
  !----------------------------------------------------------------------------
  SUBROUTINE complete( matrix )
    !--------------------------------------------------------------------------
    !! Make a matrix Hermitian from its upper triangle.
    !
    COMPLEX(DP), INTENT(INOUT) :: matrix(:,:)
    INTEGER :: i
    !
    DO i = 1, SIZE( matrix, 1 )
       matrix(i,i) = REAL( matrix(i,i), DP )
       matrix(i+1:,i) = CONJG( matrix(i,i+1:) )
    ENDDO
    !
  END SUBROUTINE complete
  !
  !----------------------------------------------------------------------------
  SUBROUTINE eigenvalues( ik, h, s, e )
    !--------------------------------------------------------------------------
    !! Solve H c = e S c; H and S are destroyed. Every process of a pool gets the values of its first one.
    !
    USE mp,       ONLY : mp_bcast
    USE mp_bands, ONLY : intra_bgrp_comm, root_bgrp
    !
    INTEGER, INTENT(IN)        :: ik
    !! index among all k points, for messages
    COMPLEX(DP), INTENT(INOUT) :: h(:,:), s(:,:)
    REAL(DP), INTENT(OUT)      :: e(:)
    !
    COMPLEX(DP), ALLOCATABLE :: overlap(:,:), work(:)
    REAL(DP), ALLOCATABLE    :: rwork(:)
    REAL(DP) :: norm, rcond
    REAL(DP), EXTERNAL :: ZLANHE
    INTEGER :: n, info
    !
    CALL start_clock( 'single_shot:e' )
    n = SIZE( h, 1 )
    ALLOCATE( overlap(n,n), work(MAX( 1, 2*n )), rwork(n) )
    overlap = s
    !
    ! ... 1 / |S^-1|_1 is a lower bound of the smallest eigenvalue of S. Only where LAPACK's estimate of it, good to
    ! ... a small factor, comes near the threshold are the eigenvalues of S computed.
    !
    norm = ZLANHE( '1', 'U', n, s, n, rwork )
    CALL ZPOTRF( 'U', n, s, n, info )
    rcond = 0._DP
    IF ( info == 0 ) CALL ZPOCON( 'U', n, s, n, norm, rcond, work, rwork, info )
    IF ( info == 0 .AND. rcond * norm > 100._DP * smallest_overlap ) THEN
       CALL ZHEGST( 1, 'U', n, h, n, s, n, info )
       IF ( info /= 0 ) CALL errore( 'single_shot', 'ZHEGST failed', ABS( info ) )
       CALL hermitian_eigenvalues( 'N', h, e )
    ELSE
       CALL orthogonalised_eigenvalues( ik, h, overlap, e )
    ENDIF
    CALL mp_bcast( e, root_bgrp, intra_bgrp_comm )
    CALL stop_clock( 'single_shot:e' )
    !
  END SUBROUTINE eigenvalues
  !
  !----------------------------------------------------------------------------
  SUBROUTINE orthogonalised_eigenvalues( ik, h, s, e )
    !--------------------------------------------------------------------------
    !! The same in the space that the eigenvectors of S above the threshold span.
    !
    INTEGER, INTENT(IN)        :: ik
    COMPLEX(DP), INTENT(INOUT) :: h(:,:), s(:,:)
    REAL(DP), INTENT(OUT)      :: e(:)
    !
    COMPLEX(DP), ALLOCATABLE :: hx(:,:), reduced(:,:)
    REAL(DP), ALLOCATABLE    :: weight(:)
    INTEGER :: n, i, removed, kept
    !
    n = SIZE( h, 1 )
    ALLOCATE( weight(n) )
    CALL hermitian_eigenvalues( 'V', s, weight )
    removed = COUNT( weight < smallest_overlap )
    kept = n - removed
    IF ( kept == 0 ) CALL errore( 'single_shot', 'the overlap of the atomic wavefunctions vanishes', ik )
    IF ( removed > 0 ) WRITE( stdout, '(5X,"Single shot: k point ",I0,": ",I0," linearly dependent functions ", &
         & "removed, smallest overlap eigenvalue ",ES10.2)' ) ik, removed, weight(1)
    !
    DO i = removed+1, n
       s(:,i) = s(:,i) / SQRT( weight(i) )
    ENDDO
    ALLOCATE( hx(n,kept), reduced(kept,kept) )
    CALL ZHEMM( 'L', 'U', n, kept, one, h, n, s(1,removed+1), n, zero, hx, n )
    CALL ZGEMM( 'C', 'N', kept, kept, n, one, s(1,removed+1), n, hx, n, zero, reduced, kept )
    CALL hermitian_eigenvalues( 'N', reduced, e(1:kept) )
    e(kept+1:) = absent_band
    !
  END SUBROUTINE orthogonalised_eigenvalues
  !
  !----------------------------------------------------------------------------
  SUBROUTINE hermitian_eigenvalues( job, matrix, e )
    !--------------------------------------------------------------------------
    !! Eigenvalues (job 'N'), and eigenvectors in place of the matrix (job 'V').
    !
    CHARACTER(LEN=1), INTENT(IN) :: job
    COMPLEX(DP), INTENT(INOUT)   :: matrix(:,:)
    REAL(DP), INTENT(OUT)        :: e(:)
    !
    COMPLEX(DP), ALLOCATABLE :: work(:)
    REAL(DP), ALLOCATABLE    :: rwork(:)
    COMPLEX(DP) :: best(1)
    INTEGER :: n, info
    !
    n = SIZE( matrix, 1 )
    ALLOCATE( rwork(MAX( 1, 3*n-2 )) )
    CALL ZHEEV( job, 'U', n, matrix, n, e, best, -1, rwork, info )
    ALLOCATE( work(MAX( 1, INT( best(1) ) )) )
    CALL ZHEEV( job, 'U', n, matrix, n, e, work, SIZE( work ), rwork, info )
    IF ( info /= 0 ) CALL errore( 'single_shot', 'ZHEEV failed', ABS( info ) )
    !
  END SUBROUTINE hermitian_eigenvalues
  !
  !----------------------------------------------------------------------------
  SUBROUTINE write_matrices( ik, h, s )
    !--------------------------------------------------------------------------
    !! PREFIX.save/hsNNNNN.dat, NNNNN the index among all k points (the second spin's follow the first's). A stream of
    !! native 8-byte numbers after the 8 characters 'sorepHS1':
    !!
    !!     integers  n (functions), spin (1 or 2)
    !!     reals     the k point in fractional coordinates (3)
    !!     complex   H(n,n) in Rydberg, then S(n,n), both by columns
    !
    USE cell_base, ONLY : at
    USE io_files,  ONLY : restart_dir
    USE klist,     ONLY : nkstot, xk
    USE lsda_mod,  ONLY : isk
    USE mp_bands,  ONLY : me_bgrp, root_bgrp
    !
    INTEGER, INTENT(IN)     :: ik
    COMPLEX(DP), INTENT(IN) :: h(:,:), s(:,:)
    !
    INTEGER, PARAMETER :: long = SELECTED_INT_KIND( 18 )
    INTEGER, EXTERNAL  :: global_kpoint_index
    CHARACTER(LEN=5)   :: number
    INTEGER :: unit, info
    !
    IF ( me_bgrp /= root_bgrp ) RETURN
    WRITE( number, '(I5.5)' ) global_kpoint_index( nkstot, ik )
    OPEN( NEWUNIT = unit, FILE = TRIM( restart_dir() ) // 'hs' // number // '.dat', FORM = 'unformatted', &
          ACCESS = 'stream', STATUS = 'replace', IOSTAT = info )
    IF ( info == 0 ) WRITE( unit, IOSTAT = info ) 'sorepHS1', INT( SIZE( h, 1 ), long ), INT( isk(ik), long ), &
         MATMUL( xk(:,ik), at ), h, s
    IF ( info == 0 ) CLOSE( unit, IOSTAT = info )
    IF ( info /= 0 ) CALL errore( 'single_shot', 'cannot write H and S to ' // TRIM( restart_dir() ), ik )
    !
  END SUBROUTINE write_matrices
  !
END MODULE single_shot
