# The same as sh tools/run.sh ..., for those who have make.
.PHONY: demo test lint
demo test lint:
	@sh tools/run.sh $@
