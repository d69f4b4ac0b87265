"""Operations that bounds are known for, one kind a file; a file declares with `@rule` which calls it is for."""
